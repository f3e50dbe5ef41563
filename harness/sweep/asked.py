"""Which cells a sweep has, and which of them can share an array: nodes and ranks are asked of each case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.cases import case_is_there, case_name, find_case
from harness.errors import HarnessError, NothingToDo, UsageError
from harness.matrix import TRACKS, Cell
from harness.report.github.matrix import Listed, read_listing, run_nox, select
from harness.repository import from_the_root
from harness.trainers import trainer_of

NOXFILE: Final = "noxfile.py"
#: Of an array, as Slurm has it where nobody has set MaxArraySize.
MOST: Final = 1000


@dataclass(frozen=True)
class Wish:
    """A cell of the sweep.

    Args:
        cell: which.
        asked: its case as ``harness run`` takes it.
        nodes: of a phase.
        ranks: of a phase, all together.
        engine: whether its phases are steps of an allocation of its own; else it runs as on any machine.
    """

    cell: Cell
    asked: str
    nodes: int = 1
    ranks: int = 1
    engine: bool = False


@dataclass(frozen=True)
class Array:
    """Cells that ask for the same.

    Args:
        hardware, track, nodes, ranks, engine: of each.
        wishes: the cells, in the order of their tasks.
    """

    hardware: str
    track: str
    nodes: int
    ranks: int
    engine: bool
    wishes: tuple[Wish, ...]


@dataclass(frozen=True)
class Asked:
    """What a sweep is to run.

    Args:
        wishes: the cells.
        sessions: by (hardware, track), the session of nox that makes its environment; none without a noxfile.
    """

    wishes: tuple[Wish, ...]
    sessions: dict[tuple[str, str], str]


def asked_for(
    words: Sequence[str], folder: Path, *, hardware: Sequence[str], tracks: Sequence[str], nodes: int | None
) -> Asked:
    """The cells that a command line means: of nox where there is a noxfile, else cases × tracks × hardware.

    Args:
        words: names of cases, or paths; none for every one.
        folder: of the cases.
        nodes: of a phase, instead of what the case says.

    Raises:
        UsageError: something is named that there is not.
        NothingToDo: there is no cell.
    """
    by_nox = Path(NOXFILE).is_file()
    if by_nox:
        listed = read_listing(run_nox(), "nox -l --json")
    else:
        listed = _cases(words, folder)
        with_one = [name for name in tracks or TRACKS if name in TRACKS and TRACKS[name].group is not None]
        if len(with_one) > 1:
            raise UsageError(
                f"no {NOXFILE} is here, which makes the environments of {' and '.join(with_one)}",
                "name one track with --track, whose packages are installed here; or: harness init",
            )
    some = select(listed, hardware=hardware, tracks=tracks)
    # One environment a track, whichever cases are asked for: it is there the next time.
    sessions: dict[tuple[str, str], str] = {}
    for one in some if by_nox else ():
        sessions.setdefault((one.cell.hardware, one.cell.track), one.session)
    names = {case_name(word): word for word in words}
    wishes = tuple(
        _sized(one.cell, names.get(one.cell.case, one.cell.case), folder, nodes)
        for one in some
        if not words or one.cell.case in names
    )
    for name in names.keys() - {one.cell.case for one in wishes}:
        raise UsageError(
            f"{name}: is no case that nox lists for {', '.join(hardware)}",
            from_the_root(folder) or "nox -l lists them",
        )
    if not wishes:
        said = "nox lists no cell" if by_nox else f"{folder}: holds no case"
        raise NothingToDo(f"{said} of {', '.join(hardware)}", "harness init writes a case; nox -l lists them")
    return Asked(wishes, sessions)


def _cases(words: Sequence[str], folder: Path) -> tuple[Listed, ...]:
    from harness.matrix import HARDWARE, cases_by_name

    for word in words:
        if not case_is_there(word):
            find_case(word, folder)  # says so
    names = [case_name(word) for word in words] or sorted(cases_by_name(folder))
    return tuple(
        Listed(Cell(hardware, track, name), "") for hardware in HARDWARE for track in TRACKS for name in names
    )


def _sized(cell: Cell, asked: str, folder: Path, nodes: int | None) -> Wish:
    """One whose case cannot be read is run too: that is how it gets a verdict which says so."""
    try:
        case = find_case(asked, folder)
        ranks = trainer_of(case, cell.hardware).world_size
    except HarnessError:
        return Wish(cell, asked)
    count = nodes or case.harness.nodes
    return Wish(cell, asked, max(1, count), max(1, ranks), engine=count > 1 or nodes is not None)


def arrays(wishes: Iterable[Wish]) -> Iterator[Array]:
    """Those of the same hardware, track, nodes and ranks share one, as far as Slurm admits it."""
    kinds: dict[tuple[str, str, int, int, bool], list[Wish]] = {}
    for one in wishes:
        kind = (one.cell.hardware, one.cell.track, one.nodes, one.ranks, one.engine)
        kinds.setdefault(kind, []).append(one)
    for kind, those in kinds.items():
        for at in range(0, len(those), MOST):
            yield Array(*kind, tuple(those[at : at + MOST]))
