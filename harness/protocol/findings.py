"""What the steps of a protocol found: phases that ran, comparisons, saved states; and all of it together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff
    from harness.checkpoints.coverage import Coverage
    from harness.checkpoints.rules import Rule
    from harness.checks import Check
    from harness.metrics import Series
    from harness.protocol.judge import Comparison
    from harness.trainers.base import Phase


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one step found.

    Args:
        checks: they go into the verdict, in the order of the steps.
    """

    checks: tuple[Check, ...] = ()

    @property
    def held(self) -> bool:
        """Whether nothing in it speaks against the cell."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True, kw_only=True)
class Recorded(Found):
    """What a phase left behind.

    Args:
        series: what it logged.
        saved: where its state of the last iteration is.
        end: the iteration that it came to; ``phase.stop`` unless its curves end before that.
        saved_at: the iteration whose state was asked for there.
    """

    phase: Phase
    series: Mapping[str, Series]
    saved: Path
    end: int = 0
    saved_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Observed(Found):
    """Two runs of the same steps, neither of them resumed, beside each other.

    Args:
        rules: what of their saved states they do not share, though they are one training: circumstances.
    """

    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NotResumed(Found):
    """A checkpoint that could not be loaded: there is no resumed run to compare.

    Args:
        component: what of it, where the error says so; else the checkpoint itself.
    """

    component: str = "checkpoint"


@dataclass(frozen=True, kw_only=True)
class Killed(Found):
    """A run that was killed on its way.

    Args:
        left: what is there to resume from; None when nothing is, which is a failed check.
        at: the iteration that its tracker names.
        late: it had ended before it could be killed.
    """

    left: Recorded | None = None
    at: int = 0
    late: bool = False


@dataclass(frozen=True, kw_only=True)
class AgainstGolden(Found):
    """A run beside its golden.

    Args:
        comparison: which golden, in which lane, and why; None when there is no golden.
        alike: nothing is other than recorded, not even what is only noted.
    """

    comparison: Comparison | None
    alike: bool = True


@dataclass(frozen=True, kw_only=True)
class Joined(AgainstGolden):
    """The joined curve of two phases beside its golden.

    Args:
        doubts: what failed, and a reference may explain; it does not count before that was tried.
        equal: bit for bit, all of it.
    """

    doubts: tuple[Check, ...] = ()
    equal: bool = False

    def unexplained(self, reference: Iterable[Found]) -> Found:
        """The doubts, where the reference has nothing to say for them: it was not a second try."""
        return Found(checks=self.doubts if all(found.held for found in reference) else ())


@dataclass(frozen=True, kw_only=True)
class Digests(Found):
    """SHA-256 of each component of a saved state; none where it cannot be read, which is a failed check.

    Args:
        coverage: what they are made of.
        values: of plain values, by component and name; they are in no digest.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    coverage: Coverage | None = None
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def components(self) -> list[str]:
        """Those that the state has anything of."""
        return sorted({*self.digests, *self.values})


@dataclass(frozen=True, kw_only=True)
class Probed(Found):
    """A state beside itself, loaded and saved at once: what differs was lost by that alone.

    Args:
        difference: None where that could not be done.
        problem: why not.
    """

    difference: StateDiff | None = None
    problem: HarnessError | None = None


@dataclass(frozen=True, kw_only=True)
class SavedState(Found):
    """The saved state of the resumed run beside the uninterrupted one's.

    Args:
        difference: None where one of them cannot be read.
        probed: the probe that took its place, where states at N cannot be compared.
    """

    difference: StateDiff | None
    probed: Probed | None = None


_Kind = TypeVar("_Kind", bound=Found)


@dataclass(frozen=True)
class Findings:
    """All that has been found so far, in the order of the steps; only ever added to."""

    found: list[Found] = field(default_factory=list)

    def add(self, found: Found) -> None:
        """What the next step found."""
        self.found.append(found)

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every check so far; what two steps stumbled over is said once."""
        return tuple(dict.fromkeys(check for found in self.found for check in found.checks))

    @property
    def failures(self) -> tuple[Check, ...]:
        """Those that did not hold."""
        return tuple(check for check in self.checks if not check.passed)

    def last(self, kind: type[_Kind]) -> _Kind | None:
        """The newest finding of a kind; None without one."""
        return next((found for found in reversed(self.found) if isinstance(found, kind)), None)

    def phase(self, name: str) -> Recorded | None:
        """What the phase called ``name`` left behind; None when it has not run to its end."""
        phases = (found for found in self.found if isinstance(found, Recorded))
        return next((found for found in phases if found.phase.name == name), None)

    def repeats(self) -> list[Mapping[str, Series]]:
        """The series of the repeats."""
        phases = (found for found in self.found if isinstance(found, Recorded))
        return [found.series for found in phases if found.phase.name == "repeat"]

    @property
    def source(self) -> Recorded | None:
        """The run whose checkpoint of k was resumed from, or would have been."""
        return self.phase("interrupted") or self.phase("continuous")

    @property
    def probed(self) -> Probed | None:
        """The probe, if it was made."""
        state = self.last(SavedState)
        return self.last(Probed) or (state.probed if state else None)
