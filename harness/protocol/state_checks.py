"""Checks of saved states: one a component, from the diff of two checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.checks import Check, Worst
from harness.protocol.judge import present

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff, TensorDiff
    from harness.checkpoints.coverage import Coverage

#: How many times as far apart as two uninterrupted runs floats may be; the distance of a few elements varies.
_FAR, _MANY = 4.0, 16
_LOST = 0.9
_WRONG_ALONE = ("incomplete in", "tied copies differ in")
_SHOWN = 3  # names and sentences; the rest is in state_diff.json


def never_the_same(rest: Sequence[TensorDiff], iteration: int) -> list[Check]:
    """What two runs that were not resumed have in their states, and must share.

    A state that is not whole, or contradicts itself, is wrong alone: that is no difference of two runs.
    """
    alone = [entry for entry in rest if entry.reason.startswith(_WRONG_ALONE)]
    return [
        present(
            f"interrupted: state: {component} is whole",
            "state",
            passed=False,
            message=f"at iteration {iteration}: {_listed(found)}",
        )
        for component, found in sorted(_by_component(alone).items())
    ] + [
        Check(
            name=f"interrupted: state: {component}",
            metric=None,
            against="continuous",
            kind="exact",
            passed=False,
            first_bad_step=iteration,
            worst=Worst(iteration, found[0].a, found[0].b, found[0].max_abs, found[0].max_rel),
            message=f"two runs from 0 to {iteration}, neither of them resumed: {_listed(found)}",
        )
        for component, found in sorted(_by_component([one for one in rest if one not in alone]).items())
    ]


def saved_state(
    difference: StateDiff, components: Sequence[str], n: int, *, name: str = "state"
) -> list[Check]:
    """One check a component, from the diff of two checkpoints."""
    groups = difference.by_component()
    checks = []
    for component in sorted({*components, *groups}):
        found = groups.get(component, ())
        if not found and not difference.names.get(component):
            continue  # a rule has left out all of it, or only the state at the end has any
        worst = None
        if found:
            entry = max(found, key=lambda one: one.max_abs or 0.0)
            worst = Worst(n, entry.a, entry.b, entry.max_abs, entry.max_rel)
        checks.append(
            Check(
                name=f"{name}: {component}",
                metric=None,
                against="state",
                kind="exact",
                passed=not found,
                first_bad_step=n if found else None,
                worst=worst,
                message=_said(found) or _same(component, difference.as_allowed.get(component, 0)),
            )
        )
    if not difference.compared:
        message = f"{difference.a} and {difference.b} hold nothing that could be compared"
        checks.append(present(f"{name}: something to compare", "state", passed=False, message=message))
    checks += _overlooked(difference, name)
    lacking = {gap.sentence: gap for gap in (*difference.gaps_a, *difference.gaps_b)}
    for sentence, gap in lacking.items():
        checks.append(present(f"{name}: {gap.component} is saved", "state", passed=False, message=sentence))
    return checks


def _overlooked(difference: StateDiff, name: str) -> list[Check]:
    """A failed check where not everything was compared."""
    if not (missed := difference.coverage.uncompared):
        return []
    message = f"{missed} of the two states were not compared: {difference.coverage.sentence()}"
    message += _unreadable(difference.unread)
    return [present(f"{name}: all of it is compared", "state", passed=False, message=message)]


def _unreadable(unread: Mapping[str, str]) -> str:
    """Which files could not be read, and why."""
    said = [f"; {file}: {reason}" for file, reason in unread.items()]
    return "".join(said[:_SHOWN]) + (f"; and {len(said) - _SHOWN} more files" if len(said) > _SHOWN else "")


def all_is_read(coverage: Coverage, unread: Mapping[str, str]) -> tuple[Check, ...]:
    """A failed check where a state holds what no digest of it can be made of."""
    if not coverage.uncompared:
        return ()
    message = f"{coverage.uncompared} of the state were not read: {coverage.sentence()}{_unreadable(unread)}"
    return (present("state: all of it is read", "state", passed=False, message=message),)


def _same(component: str, allowed: int) -> str:
    but = f", but for {allowed} of its entries, which a rule leaves out" if allowed else ""
    return f"{component}: every bit is the same{but}"


def state_by_distance(
    difference: StateDiff,
    yardstick: StateDiff,
    found: Mapping[str, float],
    usual: Mapping[str, float],
    n: int,
) -> list[Check]:
    """One check a component, of training that does not repeat its own bits.

    Args:
        difference: of the resumed run's state and the uninterrupted one's.
        yardstick: of two uninterrupted runs' states.
        found, usual: how far floats are apart in either, relative, by name.
    """
    checks = []
    allowed = _allowed(yardstick, usual)
    groups = difference.by_component()
    for component in sorted({*groups, *yardstick.by_component()}):
        bad = []
        for entry in groups.get(component, ()):
            apart, limit = found.get(entry.name), allowed(entry)
            if apart is None or limit is None or math.isnan(apart):
                bad.append(entry.sentence())
            elif apart > limit:
                bad.append(
                    f"{entry.name}: {apart:.3g} away, where two uninterrupted runs are {limit / _FAR:.3g}"
                )
        said = "; ".join(bad[:_SHOWN]) + (f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")
        checks.append(
            Check(
                name=f"state: {component}",
                metric=None,
                against="state",
                kind="tolerance",
                passed=not bad,
                first_bad_step=n if bad else None,
                message=said or f"{component}: no further apart than two uninterrupted runs are",
            )
        )
    if not difference.compared:
        message = f"{difference.a} and {difference.b} hold nothing that could be compared"
        checks.append(present("state: something to compare", "state", passed=False, message=message))
    overlooked = _overlooked(difference, "state")
    if difference.compared and not checks and not overlooked:
        message = "every bit is the same, though the case is not deterministic"
        checks.append(present("state: compared", "state", passed=True, message=message))
    return checks + overlooked


def _allowed(yardstick: StateDiff, usual: Mapping[str, float]) -> Callable[[TensorDiff], float | None]:
    """How far a float may be off; None for what two uninterrupted runs share bit for bit."""
    typical: dict[str, list[float]] = {}
    for entry in yardstick.entries:
        if entry.name in usual and entry.elements >= _MANY:
            typical.setdefault(entry.component, []).append(usual[entry.name])
    middle = {component: sorted(values)[len(values) // 2] for component, values in typical.items()}

    def limit(entry: TensorDiff) -> float | None:
        if entry.name not in usual:
            return None
        few = 1 if entry.elements >= _MANY else _FAR
        typical = max(usual[entry.name], middle.get(entry.component, 0.0))
        # What was lost and begins at 0 again is as far away as it is large.
        return min(_FAR * few * typical, max(_LOST, 1.5 * typical))

    return limit


def _by_component(entries: Sequence[TensorDiff]) -> dict[str, list[TensorDiff]]:
    found: dict[str, list[TensorDiff]] = {}
    for entry in entries:
        found.setdefault(entry.component, []).append(entry)
    return found


def _said(found: Sequence[TensorDiff]) -> str:
    """With what to do where it may be no state at all."""
    hint = " (if that is no state, say so in the case: HARNESS: checkpoint: ignore)"
    return _listed(found) + (hint if found and all(entry.plain for entry in found) else "")


def _listed(found: Sequence[TensorDiff]) -> str:
    said = [entry.sentence() for entry in found[:_SHOWN]]
    return "; ".join([*said, *([f"and {len(found) - len(said)} more"] if len(found) > len(said) else [])])
