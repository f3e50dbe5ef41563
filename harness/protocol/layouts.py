"""Parallel layouts by their names (``tp2``, ``tp1pp2``), and a case in another one than its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import gcd
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness.errors import CaseError, UsageError
from harness.trainers import trainer_of

if TYPE_CHECKING:
    from harness.cases import Case

#: The layout that a case itself has.
OWN = "own"
#: What a matrix crosses where nobody says more: each size that a layout is known by, halved or doubled.
BY_DEFAULT = (OWN, "tp2", "tp1", "pp2", "pp1")
_KINDS = {
    "tp": "tensor-model", "pp": "pipeline-model", "cp": "context",
    "ep": "expert-model", "etp": "expert-tensor",
}  # fmt: skip
_VIRTUAL = "--num-layers-per-virtual-pipeline-stage"
_ORDER = ("tp", "pp", "vp", "cp", "ep", "etp", "dp")
_WORD = re.compile(r"(?:(?:etp|tp|pp|vp|cp|ep|dp)\d{1,5})+")
_SIZE = re.compile(r"(etp|tp|pp|vp|cp|ep|dp)(\d+)")


@dataclass(frozen=True)
class Layout:
    """Sizes of a layout by their names in small letters; ``vp`` is the layers of a virtual stage, 0: none.

    Args:
        word: by which it was asked for.
        sizes: those that the word names; all else is the case's own.
    """

    word: str
    sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, word: str) -> Layout:
        """Read a word.

        Raises:
            UsageError: it is no layout.
        """
        text = word.strip().lower()
        if text == OWN:
            return cls(OWN)
        found = _SIZE.findall(text) if _WORD.fullmatch(text) else []
        names = [name for name, _ in found]
        if not found or len(set(names)) < len(names) or any(int(n) < 1 for k, n in found if k != "vp"):
            raise UsageError(
                f"--layout {word!r}: expected own, or sizes above 0, each once, of {', '.join(_ORDER)}",
                "e.g. tp2, or tp1pp2",
            )
        return cls(text, MappingProxyType({name: int(size) for name, size in found}))


@dataclass(frozen=True)
class Laid:
    """A case in a layout.

    Args:
        name: all sizes that the case has anything of, ``tp2pp2dp1``.
        case: with that layout's arguments and number of ranks.
        world_size: ranks.
    """

    name: str
    case: Case
    world_size: int


def lay(case: Case, hardware: str, layout: Layout) -> Laid:
    """A case in another layout.

    The replicas (DP) stay as many as they are, so that each has the same samples, unless the layout names
    them. Sizes of experts and of virtual stages that it does not name follow: they are the case's own, or as
    much of them as fits.

    Raises:
        CaseError: a size does not factor; with the word of the layout.
        UsageError: the case's trainer has no such sizes.
    """
    if case.trainer(hardware) == "command" and layout.sizes:
        raise UsageError(
            f"--layout {layout.word}: {case.name} is trained by a command, whose sizes nobody else knows",
            "cross it --by track; layouts are Megatron-LM's and the native trainer's",
        )
    own = sizes_of(case, hardware)
    sizes = {**own, **layout.sizes}
    if "etp" not in layout.sizes:
        sizes["etp"] = gcd(own["etp"], sizes["tp"])
    if "ep" not in layout.sizes:
        sizes["ep"] = gcd(own["ep"], max(1, sizes["tp"] * sizes["cp"] * sizes["dp"] // sizes["etp"]))
    if "vp" not in layout.sizes and sizes["pp"] != own["pp"]:
        sizes["vp"] = _virtual(case, hardware, own["vp"], sizes["pp"])
    arguments = dict(case.arguments(hardware))
    for name, kind in _KINDS.items():
        key = f"--{kind}-parallel-size"
        by_default = sizes["tp"] if name == "etp" and key not in arguments and own["etp"] > 1 else own[name]
        if sizes[name] != by_default:
            arguments[key] = str(sizes[name])
    if sizes["vp"] != own["vp"]:
        arguments.pop(_VIRTUAL, None)
        if sizes["vp"]:
            arguments[_VIRTUAL] = str(sizes["vp"])
    world = sizes["tp"] * sizes["pp"] * sizes["cp"] * sizes["dp"]
    laid = replace(
        case,
        model_args=MappingProxyType(arguments),
        model_args_2=None,
        harness=replace(case.harness, world_size=world, profiles=MappingProxyType({})),
    )
    try:
        trainer_of(laid, hardware).check()
    except CaseError as error:
        raise CaseError(f"--layout {layout.word}: {case.name}: {error.message}", error.advice) from None
    return Laid(_name(sizes), laid, world)


def distinct(laid: Iterable[Laid]) -> list[Laid]:
    """Each layout once, whatever words it was asked for by."""
    return list({one.name: one for one in laid}.values())


def sizes_of(case: Case, hardware: str) -> dict[str, int]:
    """The case's own sizes; of a case without experts, theirs are 1."""
    found = {name: case.parallel_size(hardware, kind) for name, kind in _KINDS.items() if name != "etp"}
    experts = str(case.arguments(hardware).get("--num-experts", "0")) not in ("0", "False")
    found["etp"] = case.parallel_size(hardware, _KINDS["etp"], found["tp"] if experts else 1)
    found["vp"] = _number(case.arguments(hardware).get(_VIRTUAL, 0))
    ranks = trainer_of(case, hardware).world_size
    found["dp"] = max(1, ranks // (found["tp"] * found["pp"] * found["cp"]))
    return found


def _virtual(case: Case, hardware: str, own: int, pp: int) -> int:
    """Layers of a virtual stage, as the case has them where that leaves two stages a rank or more; else 0."""
    layers = _number(case.arguments(hardware).get("--num-layers", 0))
    fits = own and pp > 1 and layers % pp == 0 and layers // pp % own == 0 and layers // pp > own
    return own if fits else 0


def _number(value: object) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else 0


def _name(sizes: Mapping[str, int]) -> str:
    """What a layout is known by: TP and PP always, the others where they are not 1."""
    none = {"vp": 0}
    said = [f"{name}{sizes[name]}" for name in _ORDER
            if name in ("tp", "pp") or sizes[name] not in (none.get(name, 1), 0)]  # fmt: skip
    return "".join(said)
