"""What a state diff says about components.

Read with care: after k+1..N of other training everything differs, and only what does not depend on the
weights speaks then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.diagnosis.result import PARAMETERS, Finding

if TYPE_CHECKING:
    from harness.checkpoints import StateDiff, TensorDiff

Groups = dict[str, list["TensorDiff"]]

#: Position in the data, schedule, random streams: the same whatever the weights are.
_APART_FROM_WEIGHTS = ("data-order", "lr-schedule", "rng", "iteration")
#: Of a parameter group: what no schedule moves.
_HYPERPARAMETERS = re.compile(
    r"(?:^|[._])(?:betas?\d?|eps|momentum|dampening|nesterov|amsgrad|maximize)(?:\.\d+)?$"
)
#: Of a parameter group: what a schedule, or whoever sets it up, writes into it.
_SCHEDULED = re.compile(rf"{_HYPERPARAMETERS.pattern}|(?:^|[._])(?:lr|wd|weight_decay)(?:_mult)?(?:\.\d+)?$")
_OPTIMIZER = re.compile(r"^optimizer\.(?P<kind>[^.]+)\.(?P<parameter>.+)$")
_IN_THE_OPTIMIZER = re.compile(r"(?:^|[:/.])optimizer\.")
_MODEL = "model."
_LARGEST = 16 << 20  # elements of a tensor that is read whole, to see where its rows went


def components(entries: Iterable[TensorDiff]) -> Groups:
    """Differing names by the component that was lost, not by the word in their names.

    Moments differ with their parameter when the parameter was lost; float32 masters are weights; and
    weights of several kinds are weights.
    """
    groups: Groups = {}
    for entry in entries:
        groups.setdefault(entry.component, []).append(entry)
    _masters_are_weights(groups)
    _moments_follow(groups)
    _whole_optimizer(groups)
    kinds = [kind for kind in PARAMETERS if kind in groups]
    if len(kinds) > 1:
        groups["weights"] = [entry for kind in kinds for entry in groups.pop(kind)]
    _whole_groups(groups)
    return groups


def _masters_are_weights(groups: Groups) -> None:
    from harness.checkpoints.components import of_parameter

    kept = []
    for entry in groups.pop("optimizer", []):
        match = _OPTIMIZER.match(entry.name)
        if match and match["kind"] == "master":
            groups.setdefault(of_parameter(match["parameter"]), []).append(entry)
        else:
            kept.append(entry)
    if kept:
        groups["optimizer"] = kept


def _moments_follow(groups: Groups) -> None:
    """Leave out the moments of parameters that differ themselves."""
    names = [entry.name for kind in PARAMETERS for entry in groups.get(kind, ())]
    lost = {name.removeprefix(_MODEL) for name in names if name.startswith(_MODEL)}
    kept = [e for e in groups.pop("optimizer", []) if not _is_moment_of(e.name, lost)]
    if kept:
        groups["optimizer"] = kept


def _is_moment_of(name: str, parameters: set[str]) -> bool:
    match = _OPTIMIZER.match(name)
    return bool(match) and match["parameter"] in parameters  # type: ignore[index]


def _whole_optimizer(groups: Groups) -> None:
    """Masters that were lost with the moments beside them, and no weight: that is the whole optimizer."""
    found = [entry for kind in PARAMETERS for entry in groups.get(kind, ())]
    if found and began_anew(groups) and all(_IN_THE_OPTIMIZER.search(entry.name) for entry in found):
        groups["optimizer"] += [entry for kind in PARAMETERS for entry in groups.pop(kind, ())]


def _whole_groups(groups: Groups) -> None:
    """A parameter group that lost its rate and its betas was lost whole: that is no schedule's doing."""
    rates = groups.get("lr-schedule", [])
    hyper = {parent(e.name) for e in groups.get("optimizer", ()) if _HYPERPARAMETERS.search(e.name)}
    if rates and hyper and all(parent(entry.name) in hyper for entry in rates):
        groups["optimizer"] += groups.pop("lr-schedule")


def parent(name: str) -> str:
    """What a dotted name is part of; the index of a list does not count."""
    return re.sub(r"\.\d+$", "", name).rpartition(".")[0]


def not_carried_over(probe: StateDiff) -> Groups:
    """What loading and saving at once has changed."""
    return components(probe.entries)


def apart_from_weights(state: StateDiff) -> Groups:
    """What differs at N and would not, had only the weights gone another way.

    Besides positions, that is every counter (one whole number) and hyperparameter of the optimizer and
    of buffers: a step count is no gradient.
    """

    def is_apart(entry: TensorDiff) -> bool:
        if entry.component in ("optimizer", "buffers"):
            return _is_count(entry) or bool(_HYPERPARAMETERS.search(entry.name))
        return entry.component in _APART_FROM_WEIGHTS

    return components(filter(is_apart, state.entries))


def _is_count(entry: TensorDiff) -> bool:
    if entry.elements != 1 or entry.reason != "values":
        return False
    return all(
        isinstance(v, (int, float)) and float(v).is_integer() and abs(v) < 1 << 53 for v in (entry.a, entry.b)
    )


def began_anew(groups: Groups) -> bool:
    """Whether moments or step counts of the optimizer differ: no rate and no schedule moves those."""
    return any(
        (entry.elements > 1 or _is_count(entry) or entry.reason != "values")
        and not _SCHEDULED.search(entry.name)
        for entry in groups.get("optimizer", ())
    )


def sentences(groups: Groups, component: str, where: str) -> list[str]:
    """What differs of a component: how many names, and the one that says most."""
    entries = groups[component]
    telling = most_telling(entries)
    more = f", and {len(entries) - 1} more of `{component}`" if len(entries) > 1 else ""
    return [f"{where}: {telling.sentence()}{more}"]


def most_telling(entries: list[TensorDiff]) -> TensorDiff:
    """The entry that says most of what was lost."""

    # A counter that is 0 again says more than the last bits of a moment; an incomplete tensor most.
    def key(entry: TensorDiff) -> tuple[bool, bool, bool, float, str]:
        return (
            entry.reason == "values", not _is_count(entry), entry.b != 0,
            -(entry.max_abs or 0.0), entry.name,
        )  # fmt: skip

    return min(entries, key=key)


def misplaced(probe: StateDiff, groups: Groups) -> Finding | None:
    """Rows of a parameter that came back at the place of other rows: it was cut or joined wrongly."""
    for kind in PARAMETERS:
        for entry in groups.get(kind, ()):
            if entry.reason != "values" or entry.rows is None or entry.elements > _LARGEST:
                continue
            shift = _shift(Path(probe.a), Path(probe.b), entry.name, entry.rows)
            if shift:
                first, last = entry.rows
                sentence = (
                    f"probe: {entry.name}: rows {first} to {last} hold what was saved in rows "
                    f"{first + shift} to {last + shift}: its parts were cut or joined at the wrong row"
                )
                return Finding("weights", sentence, entry.name)
    return None


def _shift(a: Path, b: Path, name: str, rows: tuple[int, int]) -> int | None:
    """By how many rows ``b``'s differing rows are off, as far as they have a place in ``a``."""
    import torch

    from harness.checkpoints import open_checkpoint
    from harness.errors import CheckpointError

    try:
        saved, loaded = open_checkpoint(a).read(name), open_checkpoint(b).read(name)
    except CheckpointError:
        return None
    if saved.shape != loaded.shape or saved.dim() < 1:
        return None
    first, last = rows
    size = len(saved)
    flat_a, flat_b = saved.reshape(size, -1), loaded.reshape(size, -1)
    # The first row's place gives the shift; the others must follow.
    for at in torch.nonzero((flat_a == flat_b[first]).all(1)).flatten().tolist():
        shift = int(at) - first
        stop = min(last + 1, size, size - shift)
        enough = stop - first >= max(2, (last + 1 - first) // 2)
        if shift and enough and torch.equal(flat_b[first:stop], flat_a[first + shift : stop + shift]):
            return shift
    return None


def gaps(*diffs: StateDiff | None) -> list[Finding]:
    """What was never saved, as far as the checkpoints tell by what they hold."""
    found: dict[str, Finding] = {}
    for diff in diffs:
        for gap in (*diff.gaps_a, *diff.gaps_b) if diff is not None else ():
            found.setdefault(gap.sentence, Finding(gap.component, gap.sentence, gap.entry))
    return list(found.values())
