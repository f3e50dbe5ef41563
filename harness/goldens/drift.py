"""One commit in two environments: which values drift, by how much, because of which operation.

Both environments have left a tree of results. A cell's two uninterrupted runs are compared bit for bit; what
differs is judged by the tolerances that any run in another environment is judged by, and held against the
digests of operations that both runs have measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.errors import HarnessError, NothingToDo, UsageError
from harness.goldens.approving import Refused, golden_of, known_cases, metrics_of
from harness.goldens.compare import MetricDiff, compare
from harness.goldens.environments import Environment, Run, matches, pairs, unlike
from harness.goldens.fingerprints import NUMERICS, RANDOM, apart, kind_of
from harness.goldens.sources import Source, plain

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.goldens.store import Planned
    from harness.metrics import Series

#: Checks against the golden that fail though no value does: there was none, or it was just recorded.
_NO_VALUES: Final = frozenset({"golden: is there", "golden: recorded"})


@dataclass(frozen=True)
class Changed:
    """A metric that is not the same to the last bit.

    Args:
        diff: where and how far; A is the old environment.
        within: whether that is of the size that rounding grows to.
        said: what the tolerances say of it.
    """

    diff: MetricDiff
    within: bool
    said: str


@dataclass(frozen=True)
class Cost:
    """A time (seconds) or memory (bytes) that is beyond its noise, higher or lower."""

    metric: str
    before: float
    after: float


@dataclass(frozen=True)
class Compared:
    """A cell in both environments.

    Args:
        cell: where the new environment has it: the one whose golden is approved.
        changed: metrics, in the order of the log; none of a time or memory.
        state: components of the state at N that have another digest.
        operations: those that give other bits, in the order of a training step.
        measured: how many operations both runs have measured; 0: their trainer measures none.
        environment: what is called otherwise, ``torch 2.8.0 → 2.13.0``.
        deterministic: whether the case is.
        unlike_golden: checks against its golden that the run in the old environment failed.
        costs: shown, never drift.
    """

    cell: str
    changed: tuple[Changed, ...] = ()
    state: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    measured: int = 0
    environment: tuple[str, ...] = ()
    deterministic: bool = True
    unlike_golden: tuple[str, ...] = ()
    costs: tuple[Cost, ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether a bit differs, of a curve or of the state."""
        return bool(self.changed or self.state)

    @property
    def beyond(self) -> tuple[Changed, ...]:
        """What is more than rounding."""
        return tuple(one for one in self.changed if not one.within)

    @property
    def unexplained(self) -> bool:
        """Whether bits differ though nothing that is known of the environments does."""
        explained = self.operations if self.measured else self.environment
        return self.drifted and self.deterministic and not explained

    @property
    def concerns(self) -> tuple[str, ...]:
        """Why somebody has to look at it before it is approved, a sentence each."""
        found = [f"more than rounding: {one.diff.metric}: {one.said}" for one in self.beyond]
        if self.unexplained:
            found.append(
                f"unexplained: {self._same()}, and values differ: what differs is not measured, or the"
                " training is not deterministic; run it twice in one environment to tell"
            )
        if self.unlike_golden:
            found.append(
                f"not the environment alone: in the old one it is not its golden either:"
                f" {', '.join(self.unlike_golden)} failed"
            )
        return tuple(found)

    def _same(self) -> str:
        if self.measured:
            return f"all {self.measured} measured operations give the same bits in both environments"
        return "no operation was measured, both environments have the same names"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        metrics = [
            {**one.diff.as_dict(), "within_rounding": one.within, "said": one.said} for one in self.changed
        ]
        more = {"drifted": self.drifted, "unexplained": self.unexplained, "concerns": self.concerns}
        return {**asdict(self), "changed": metrics, **more}


@dataclass(frozen=True, eq=False)
class Drift:
    """Two environments.

    Args:
        old, new: what they are called.
        commit: of all runs; empty where there are several, or none is known.
        compared: cells, sorted.
        refused: cells that cannot be compared, and why.
    """

    old: str
    new: str
    commit: str
    compared: tuple[Compared, ...]
    refused: tuple[Refused, ...]
    runs: Mapping[str, Run] = field(default_factory=dict, repr=False)

    @property
    def drifted(self) -> tuple[Compared, ...]:
        """Cells that are not the same to the last bit."""
        return tuple(one for one in self.compared if one.drifted)

    @property
    def same(self) -> bool:
        """Whether every cell was compared and is the same."""
        return not (self.drifted or self.refused)

    def summary(self) -> str:
        """One line for a person."""
        drifted = self.drifted
        beyond = [one.cell for one in drifted if one.beyond]
        odd = [one.cell for one in drifted if one.unexplained]
        all_of = len(self.compared) + len(self.refused)
        parts = [f"{len(self.compared) - len(drifted)} equal bit for bit", f"{len(drifted)} drifted"]
        if any(one.changed for one in drifted) and not beyond:
            parts.append("all within rounding" if len(drifted) > 1 else "within rounding")
        only = [one for one in drifted if not one.changed]
        parts += [f"{len(only)} by its state alone"] if only else []
        parts += [f"{len(beyond)} by more than rounding ({_few(beyond)})"] if beyond else []
        parts += [f"{len(odd)} unexplained ({_few(odd)})"] if odd else []
        parts += [f"{len(self.refused)} not compared"] if self.refused else []
        return f"{all_of} cell{'' if all_of == 1 else 's'}: {', '.join(parts)}"

    def approval(
        self, store: Path, cases: Path, accepted: Sequence[str] = ()
    ) -> tuple[list[Planned], list[Refused]]:
        """What one approval for all would write: the new environment's values, of equal cells too.

        Those then have the new environment's provenance, and later runs are compared exactly.

        Args:
            accepted: cells, or patterns of some, whose :attr:`Compared.concerns` somebody has looked at.

        Raises:
            UsageError: one of ``accepted`` is no cell that was compared.
        """
        for pattern in accepted:
            if not any(matches(one.cell, [pattern]) for one in self.compared):
                raise UsageError(f"--accept {pattern}: no such cell was compared", "e.g. 'cpu/dev/<case>'")
        known = known_cases(cases)
        planned: list[Planned] = []
        refused = list(self.refused)
        for one in self.compared:
            if one.concerns and not matches(one.cell, accepted):
                refused.append(Refused(one.cell, "; ".join(one.concerns)))
                continue
            run = self.runs[one.cell]
            try:
                planned.append(golden_of(run.folder, run.cell, run.verdict.provenance, store, known))
            except HarnessError as error:
                refused.append(Refused(one.cell, error.message))
        return planned, refused

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "from": self.old, "to": self.new, "commit": self.commit, "same": self.same,
            "summary": self.summary(), "cells": [one.as_dict() for one in self.compared],
            "refused": [asdict(one) for one in self.refused],
        }  # fmt: skip


def drift(
    old: Environment,
    new: Environment,
    cases: Path,
    *,
    without: Sequence[str] = (),
    across_commits: bool = False,
) -> Drift:
    """Compare every cell of two environments.

    Args:
        cases: says which metrics of a case are compared.
        without: cells, or patterns of some, that are left out.
        across_commits: whether somebody vouches for what lies between the commits of the runs.

    Raises:
        UsageError, NothingToDo: as :func:`harness.goldens.environments.pairs`; or no cell is left.
    """
    shared = pairs(old, new, without)
    refused = list(shared.refused)
    if not (shared.found or refused):
        raise NothingToDo("--without leaves no cell", "it takes HARDWARE/TRACK/CASE, or a pattern of some")
    known = known_cases(cases)
    compared = []
    for pair in shared.found:
        reason = unlike(*pair, across_commits=across_commits)
        try:
            compared += [] if reason else [_compared(*pair, known)]
        except HarnessError as error:
            reason = error.message
        refused += [Refused(pair[1].cell.id, reason)] if reason else []
    commits = {run.commit for pair in shared.found for run in pair}
    return Drift(
        old.label, new.label, commits.pop() if len(commits) == 1 else "", tuple(compared),
        tuple(sorted(refused, key=lambda one: one.cell)), {run.cell.id: run for _, run in shared.found},
    )  # fmt: skip


def _compared(old: Run, new: Run, known: Mapping[str, Path]) -> Compared:
    from harness.checks.bounds import is_bounded, is_speed

    wanted, _ = metrics_of(new.cell, known)
    before, after = (_curves(run, lambda name: not wanted or name in wanted) for run in (old, new))
    judged = {name for name in (*before, *after) if not (is_bounded(name) or is_speed(name))}
    there, here = old.fingerprint, new.fingerprint
    measured = [one.get(NUMERICS) for one in (there, here)]
    shared = set.intersection(*({*one} if isinstance(one, Mapping) else set() for one in measured))
    costs = ({name: one[name] for name in one if is_bounded(name)} for one in (before, after))
    operations = apart(there, here).operations
    rounding = str(here.get("precision", "")) if operations and RANDOM not in operations else ""
    lines = [{name: one[name] for name in one if name in judged} for one in (before, after)]
    return Compared(
        cell=new.cell.id,
        changed=_changed(lines[0], lines[1], rounding),
        state=_state(old.verdict.provenance.get("state"), new.verdict.provenance.get("state")),
        operations=operations,
        measured=len(shared),
        environment=_environment(there, here),
        deterministic=here.get("deterministic") is not False,
        unlike_golden=tuple(check.name for check in old.verdict.failures if _of_values(check)),
        costs=_costs(new.cell.hardware, *costs),
    )


def _of_values(check: Check) -> bool:
    """Whether a failed check says that a run is not its golden; a slower one still is."""
    from harness.checks.bounds import is_bounded

    return check.against == "golden" and check.name not in _NO_VALUES and not is_bounded(check.metric or "")


def _curves(run: Run, wanted: Callable[[str], bool]) -> dict[str, Series]:
    from harness.metrics import read_metrics

    phase = run.folder / "continuous"
    return {n: one for n, one in read_metrics(phase / "tensorboard", phase).items() if wanted(n)}


def _changed(before: Mapping[str, Series], after: Mapping[str, Series], rounding: str) -> tuple[Changed, ...]:
    from harness.checks import compare_curves

    found = compare(Source("", plain(before)), Source("", plain(after)))
    apart_ = [diff for diff in found if not diff.same]
    if not apart_:
        return ()
    steps = [int(step) for one in (*before.values(), *after.values()) for step in one.steps]
    checks = compare_curves(
        before, after, against="continuous", lane="tolerance", first=min(steps), last=max(steps),
        rounding=rounding,
    )  # fmt: skip
    by_metric = {check.metric: check for check in checks}
    changed = []
    for diff in apart_:
        check = by_metric[diff.metric]
        sides = [name for name, one in (("old", before), ("new", after)) if diff.metric in one]
        said = check.message if len(sides) == 2 else f"only the {sides[0]} environment's run logged it"
        changed.append(Changed(diff, check.passed, said))
    return tuple(changed)


def _state(before: object, after: object) -> tuple[str, ...]:
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return ()
    return tuple(str(name) for name in after if name in before and before[name] != after[name])


def _environment(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    keys = [key for key in dict.fromkeys((*before, *after)) if key != NUMERICS]
    return tuple(
        f"{key} {_value(before.get(key))} → {_value(after.get(key))}"
        for key in keys
        if kind_of(key) in ("environment", "version") and before.get(key) != after.get(key)
    )


def _value(value: object) -> str:
    return "none" if value is None or value == "" else str(value)


def _costs(hardware: str, before: Mapping[str, Series], after: Mapping[str, Series]) -> tuple[Cost, ...]:
    """Beyond the bound of the other in either direction; no times of a CPU, whose cores others use too."""
    from harness.checks import compare_curves
    from harness.checks.bounds import is_time, typical

    names = [n for n in before if n in after and not (hardware == "cpu" and is_time(n))]
    if not names:
        return ()
    sides = [{name: one[name] for name in names} for one in (before, after)]
    steps = [int(step) for side in sides for one in side.values() for step in one.steps]
    found = [
        compare_curves(one, other, against="golden", lane="tolerance", first=min(steps), last=max(steps))
        for one, other in (sides, sides[::-1])
    ]
    odd = {c.metric for checks in found for c in checks if c.kind == "upper-bound" and not c.passed}
    return tuple(
        Cost(n, typical(n, before[n].values), typical(n, after[n].values)) for n in names if n in odd
    )


def _few(cells: Sequence[str]) -> str:
    return ", ".join(cells[:3]) + (f" and {len(cells) - 3} more" if len(cells) > 3 else "")
