"""What a process logs, or does not, because it begins or ends there: that is no loss of training.

Nothing is assumed of any trainer. A cost (time, memory, speed) that an uninterrupted run logs from its s-th
step on may come as late behind a resume, and no later; a run that was told to stop at k may log at its last
step what an uninterrupted run logs at its own. Values of training are never among what may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.checks.wording import ranges
from harness.metrics.known import about

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.metrics import Series

Sides = tuple["Series | None", "Series | None", str]


@dataclass(frozen=True)
class Edges:
    """Where a run was stopped and went on.

    Args:
        whole: the curves of a run that began and ended only once: the golden's, or the uninterrupted one's.
        k: the iteration that was resumed from.
        end: the last step that the interrupted run logged; None where its curves are not compared.
        cut: the last step before k, where the interrupted process was ended from outside: what it had not
            written by then went with it. None where it ended by itself.
    """

    whole: Mapping[str, Series]
    k: int
    end: int | None = None
    cut: int | None = None

    def without(self, metric: str, expected: Series | None, actual: Series | None) -> Sides:
        """Both sides without what only one of them has for that reason, and a note that says so."""
        import numpy as np

        if expected is None or metric not in self.whole or not len(self.whole[metric]):
            return expected, actual, ""
        steps = np.empty(0, np.int64) if actual is None else actual.steps
        missing = self._not_yet(metric, expected.steps, steps)
        unwritten = self._unwritten(expected.steps, steps)
        extra = self._at_an_edge(metric, expected.steps, steps)
        if actual is not None:  # what is no number is left out nowhere
            extra = np.setdiff1d(extra, actual.steps[~np.isfinite(actual.values)])
        said = [
            f"{what} {ranges(odd.tolist())}"
            for what, odd in (
                ("not logged by a process that has just begun:", missing),
                ("not written by a process when it was ended, and not compared:", unwritten),
                ("logged because a process began or ended:", extra),
            )
            if odd.size
        ]
        if missing.size or unwritten.size:
            expected = expected.kept(~np.isin(expected.steps, np.union1d(missing, unwritten)))
        if extra.size and actual is not None:
            actual = actual.kept(~np.isin(actual.steps, extra))
        return expected, actual, f" ({'; '.join(said)})" if said else ""

    def _not_yet(
        self, metric: str, expected: NDArray[np.int64], actual: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Steps of a cost that are missing before the resumed process has logged any of it."""
        import numpy as np

        missing = np.setdiff1d(expected, actual)
        if not _is_cost(metric):
            return missing[:0]
        late = self.k + int(self.whole[metric].steps.min())  # as late as the whole run's own first
        first = min(actual[self._resumed(actual)].tolist(), default=late)
        return missing[self._resumed(missing) & (missing < min(late, first))]

    def _unwritten(self, expected: NDArray[np.int64], actual: NDArray[np.int64]) -> NDArray[np.int64]:
        """Steps up to k behind the last that an interrupted process wrote before it was ended."""
        import numpy as np

        missing = np.setdiff1d(expected, actual)
        if self.cut is None:
            return missing[:0]
        last = max((step for step in actual.tolist() if step <= self.cut), default=-1)
        return missing[(missing > last) & (missing <= self.cut)]

    def _at_an_edge(
        self, metric: str, expected: NDArray[np.int64], actual: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Steps that an uninterrupted run does not log, since it neither begins nor ends there."""
        import numpy as np

        extra, whole = np.setdiff1d(actual, expected), self.whole[metric].steps
        allowed = []
        last = max(int(line.steps.max()) for line in self.whole.values() if len(line))
        if self.end is not None and last in whole.tolist():
            allowed.append(self.end)
        if _is_cost(metric):
            behind = actual[self._resumed(actual)]
            same = self.k + int(whole.min())
            allowed += [same] if behind.size and int(behind.min()) == same else []
        return extra[np.isin(extra, allowed)]

    def _resumed(self, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which steps are the resumed process's."""
        import numpy as np

        return np.ones(len(steps), bool) if self.end is None else steps > self.end


def _is_cost(metric: str) -> bool:
    return about(metric).judged in ("time", "memory", "finite")
