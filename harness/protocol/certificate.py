"""What a resumed run depends on: each saved entry altered, training resumed from it to N, and judged.

On a sound case it is the certificate of the gate: which entries matter, at which iteration the checks notice
that they are lost, which of them they would not notice, and which are saved and never read.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import CheckpointError, MetricsError, TrainerFailed, UsageError
from harness.protocol import continuation
from harness.protocol.findings import Found, Recorded
from harness.protocol.judge import present
from harness.protocol.refusal import sentence

if TYPE_CHECKING:
    from harness.ablation import Alterable
    from harness.checks import Check
    from harness.protocol.steps import Steps

#: ``caught``: a check fails; ``unread``: nothing comes out otherwise, in any bit; ``missed``: all checks
#: hold, where they are not exact; ``cannot``: it cannot be altered; ``untried``: the seconds were used up.
Outcome = Literal["caught", "missed", "unread", "cannot", "untried"]
_WORDS: dict[Outcome, str] = {
    "caught": "caught", "missed": "not caught", "unread": "not read", "cannot": "cannot be altered",
    "untried": "not tried",
}  # fmt: skip
#: What is tried first: where the seconds do not suffice, what a loss of weights would show is tried last.
_FIRST = ("rng", "data-order", "lr-schedule", "grad-scaler", "iteration", "optimizer", "buffers")
_NUMBER = re.compile(r"\d+")
#: A component, and whether they are plain values.
_Part = tuple[str, bool]
#: How much longer than the mean of those before it, or than the unaltered one, a resumed run may take.
_SLOWER = 1.25


@dataclass(frozen=True)
class Line:
    """A group of entries of the checkpoint of k, altered together.

    Args:
        component: the design's word for what they belong to.
        names: the entries.
        outcome: what came of it.
        step: the first iteration at which a check fails; None without one.
        said: by which check; or why they were not altered.
    """

    component: str
    names: tuple[str, ...]
    outcome: Outcome
    step: int | None = None
    said: str = ""

    @property
    def called(self) -> str:
        """What all of their names have in common."""
        if len(self.names) == 1:
            return self.names[0]
        kinds = dict.fromkeys(map(kind, self.names))
        first = next(iter(kinds))
        return f"{first} ({len(self.names)})" if len(kinds) == 1 else f"{first} … ({len(self.names)})"


@dataclass(frozen=True)
class Certificate:
    """All groups of a checkpoint.

    Args:
        k, n: the iteration resumed after, and the last one.
        lines: in the order in which they were tried.
        iterations: that were trained for it, beside the run that it is of.
        seconds: that it took.
    """

    k: int
    n: int
    lines: tuple[Line, ...]
    iterations: int
    seconds: float

    def sentence(self) -> str:
        """The number for a verdict."""
        counts = Counter(line.outcome for line in self.lines)
        altered = counts["caught"] + counts["missed"] + counts["unread"]
        parts = [f"of {altered} groups {counts['caught'] + counts['missed']} matter"]
        parts[0] += " and are caught" if not counts["missed"] else f", {counts['caught']} of them are caught"
        rest: tuple[Outcome, ...] = ("unread", "untried")
        parts += [
            f"{counts[each]} {'is' if counts[each] == 1 else 'are'} {_WORDS[each]}"
            for each in rest
            if counts[each]
        ]
        if cannot := sum(len(line.names) for line in self.lines if line.outcome == "cannot"):
            parts.append(f"{cannot} {'entry' if cannot == 1 else 'entries'} {_WORDS['cannot']}")
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        lines = [{**asdict(line), "names": list(line.names)} for line in self.lines]
        return {"sentence": self.sentence(), "k": self.k, "n": self.n, "iterations": self.iterations,
                "seconds": round(self.seconds, 1), "groups": lines}  # fmt: skip

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """For a table: component, entries, outcome, iteration, by what."""
        return [
            (line.component, line.called, _WORDS[line.outcome], "" if line.step is None else str(line.step),
             line.said)
            for line in self.lines
        ]  # fmt: skip

    def page(self, cell: str) -> str:
        """All of it in Markdown."""
        head = [
            f"# {cell}: what the resumed run depends on",
            "",
            f"{self.sentence()[:1].upper()}{self.sentence()[1:]}.",
            f"Each group of entries of the checkpoint of iteration {self.k} was altered, and nothing else;",
            f"training was resumed from it to {self.n}, and judged as any resumed run is:",
            f"{self.iterations} iterations in {self.seconds:.0f} s.",
            "",
            "| component | entries | | iteration | |",
            "|---|---|---|---|---|",
        ]
        rows = ["| " + " | ".join(_cell(each) for each in row) + " |" for row in self.rows()]
        return "\n".join([*head, *rows, ""])


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def kind(name: str) -> str:
    """A name in which ``#`` stands for every number: what the layers of a model share."""
    return _NUMBER.sub("#", name)


def certify(
    steps: Steps,
    source: Recorded,
    resumed: Recorded,
    reference: Recorded,
    *,
    seconds: float,
    only: Collection[str] = (),
) -> Certificate:
    """Try what a resumed run depends on.

    Args:
        source: whose checkpoint of k is altered.
        resumed: how training went on from it unaltered.
        reference: the run that each is compared with: the uninterrupted one, of a sound case.
        seconds: how long all of it may take; the groups are made as small as that allows.
        only: entries to try, each by itself; empty: all of them.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        UsageError: it holds no such entry.
    """
    return _Certifying(steps, source, resumed, reference, seconds).all(only)


class _Certifying:
    def __init__(
        self, steps: Steps, source: Recorded, resumed: Recorded, reference: Recorded, seconds: float
    ) -> None:
        self._steps, self._plan, self._phases = steps, steps.plan, steps.phases
        self._source, self._resumed, self._reference = source, resumed, reference
        self._seconds, self._began = seconds, time.monotonic()
        self._unaltered = max(0.1, steps.phases.timing().get("resumed", 0.1))
        self._took: list[float] = []

    def all(self, only: Collection[str]) -> Certificate:
        from harness.ablation import alterable

        saved = self._plan.trainer.saved(self._source.phase, self._plan.k)
        entries = alterable(saved, self._steps.states.rules)
        lines = [self._line(*group) for group in self._groups(entries, only)]
        wanted = set(only)
        cannot: dict[tuple[str, str], list[str]] = {}  # a script's settings may have a hundred that are None
        for entry in entries:
            if entry.reason and (not wanted or entry.name in wanted):
                cannot.setdefault((entry.component, entry.reason), []).append(entry.name)
        lines += [Line(part, tuple(names), "cannot", None, why) for (part, why), names in cannot.items()]
        each = self._plan.n - self._plan.k
        spent = time.monotonic() - self._began
        return Certificate(self._plan.k, self._plan.n, tuple(lines), len(self._took) * each, spent)

    def _groups(
        self, entries: Sequence[Alterable], only: Collection[str]
    ) -> list[tuple[str, tuple[str, ...]]]:
        """Entries that are altered together: by component and kind, fewer where time is short."""
        can = {entry.name: entry for entry in entries if not entry.reason}
        if only:
            unknown = sorted(set(only) - {entry.name for entry in entries})
            if unknown:
                said = f"{', '.join(unknown[:3])}: no entry of the checkpoint of {self._plan.k}"
                raise UsageError(said, "harness checkpoint alter --list prints them")
            return [(can[name].component, (name,)) for name in dict.fromkeys(only) if name in can]
        return grouped(entries, max(1, int(self._seconds / self._next)))

    def _line(self, component: str, names: tuple[str, ...]) -> Line:
        from harness.ablation import alter

        began = time.monotonic()
        if self._took and began - self._began + self._next > self._seconds:
            return Line(component, names, "untried", None, f"no time was left for it of {self._seconds:g} s")
        folder = f"altered-{len(self._took) + 1}"
        load = self._phases.folder.checkpoints(f"{folder}-from")
        trainer = self._plan.trainer
        try:
            trainer.rewind(self._source.phase, load, self._plan.k)
            phase = replace(self._source.phase, save=load, load=None, stop=self._plan.k)
            alter(trainer.saved(phase, self._plan.k), names)
            failed = self._judged(load, folder)
        except CheckpointError as error:
            return Line(component, names, "cannot", None, error.message)
        finally:
            for path in (load, self._phases.folder.checkpoints(folder)):
                for each in (path, *path.parent.glob(f".{path.name}.*")):  # and where its files were gathered
                    shutil.rmtree(each, ignore_errors=True)
        self._took.append(time.monotonic() - began)
        if failed:
            first = min(failed, key=_first_bad)
            step = first.first_bad_step
            return Line(component, names, "caught", step, first.name)
        return Line(component, names, "unread" if self._exact else "missed")

    @property
    def _next(self) -> float:
        """How many seconds the next one may take: a busy machine is not busy for ever, so not the longest."""
        return _SLOWER * (sum(self._took) / len(self._took) if self._took else self._unaltered)

    @property
    def _exact(self) -> bool:
        """Whether what comes out otherwise in a single bit fails a check."""
        return self._plan.deterministic and not self._plan.layouts_differ

    def _judged(self, load: Path, folder: str) -> list[Check]:
        """The checks that fail, of a run that is resumed from there.

        Raises:
            CheckpointError: it has left no state.
        """
        k, n = self._plan.k, self._plan.n
        steps, trainer = self._steps, self._plan.trainer
        try:
            run = self._phases.run("resumed", load=load, start=k, stop=n, folder=folder)
        except (TrainerFailed, MetricsError, CheckpointError) as error:
            name = f"it does not go on from it ({sentence(error)})"
            return [present(name, "continuous", passed=False, message=name)]
        named = [continuation.named(each.series, self._plan.case.metrics) for each in (run, self._source)]
        judged, known = named[0], continuation.before(named[1], k)
        again = continuation.replays(judged, known) and not trainer.saved_until(self._reference.phase.save, k)
        like = continuation.named(self._reference.series, self._plan.case.metrics)
        went_on = continuation.went_on(judged, known, like, k, trained_again=again, n=n)
        run = replace(run, series={**run.series, **went_on.series})
        found = [Found(checks=(went_on.check,)), steps.came_to_the_end(run, self._reference)]
        found.append(steps.compare_with_uninterrupted(run, self._reference, self._source))
        if self._exact:
            found.append(steps.states.at_the_end(run, self._reference, None))
        return [check for each in found for check in each.checks if not check.passed]


def _first_bad(check: Check) -> tuple[float, bool]:
    """Checks by the iteration at which they fail; curves before states."""
    step = check.first_bad_step
    return (float("inf") if step is None else step, check.metric is None)


def grouped(entries: Iterable[Alterable], most: int) -> list[tuple[str, tuple[str, ...]]]:
    """Entries that are altered together: by component and kind, fewer where time is short.

    Tensors and plain values stay apart: a trainer may refuse a flag that says otherwise (``amsgrad``), and
    then nothing would be known of the moments altered with it.

    Args:
        entries: those that cannot be altered are passed over.
        most: how many groups there may be; there are more where even a group a part is more.

    Returns:
        Component and names, in the order in which they are tried.
    """
    can = {entry.name: entry for entry in entries if not entry.reason}
    found: dict[_Part, dict[str, dict[str, None]]] = {}
    placed: set[str] = set()
    for name, entry in can.items():
        if name in placed:
            continue  # in the bytes of one that has its group
        part = found.setdefault((entry.component, _plain(entry)), {})
        group = part.setdefault(kind(name), {})
        for each in (name, *entry.together):
            if each in can and each not in placed:
                group[each] = None
                placed.add(each)
    parts = {part: [tuple(names) for names in found[part].values()] for part in sorted(found, key=_rank)}
    while sum(map(len, parts.values())) > most:
        largest = max(parts.values(), key=len)
        if len(largest) == 1:
            break
        largest[:] = [
            tuple(name for group in largest[i : i + 2] for name in group) for i in range(0, len(largest), 2)
        ]
    return [(component, names) for (component, _), groups in parts.items() for names in groups]


def _plain(entry: Alterable) -> bool:
    """Whether it is a value, no tensor."""
    return entry.dtype.startswith("Python ") or entry.dtype in {"text", "bytes", "big int"}


def _rank(part: _Part) -> tuple[int, bool]:
    component, plain = part
    return (_FIRST.index(component) if component in _FIRST else len(_FIRST), plain)
