"""Tracks, hardware, cells. Standard library only: the noxfile imports it before anything is installed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import CaseError, UsageError
from harness.repository import Hardware, Track, repository

CASE_FILE = "model_config.yaml"
#: The Python of environments for GPUs: megatron-core of the track dev wants 3.12, and ft_launcher has wheels
#: for none that is newer.
GPU_PYTHON = "3.12"
#: Megatron-LM on a CPU, behind the stand-in for a GPU: the platform of its goldens, its profile in a case.
MEGATRON_ON_CPU = "cpu-megatron"
_DEPTH = 5
#: What a case's (and a family's) folder may be called; it becomes part of paths and session names.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")

Row = TypeVar("Row")


class _Rows(Mapping[str, Row]):
    """A table of the repository, read when it is first looked into."""

    def __init__(self, of: Callable[[], Mapping[str, Row]]) -> None:
        self._of = of

    def __getitem__(self, name: str) -> Row:
        return self._of()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of())

    def __len__(self) -> int:
        return len(self._of())


#: The tables of the repository that this process works in; its ``pyproject.toml`` may replace them.
HARDWARE: Mapping[str, Hardware] = _Rows(lambda: repository().hardware)
TRACKS: Mapping[str, Track] = _Rows(lambda: repository().tracks)


@dataclass(frozen=True)
class Cell:
    """One (case, track, hardware)."""

    hardware: str
    track: str
    case: str

    @property
    def id(self) -> str:
        """``cpu/dev/<case>``, as ``--cell`` takes it."""
        return f"{self.hardware}/{self.track}/{self.case}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Read ``hardware/track/case``.

        Raises:
            UsageError: it is no cell; says which part is not, and what it may be.
        """
        parts = text.split("/")
        if len(parts) != 3 or not all(parts):
            raise UsageError(f"cell {text!r}: expected HARDWARE/TRACK/CASE", "e.g. cpu/dev/<case>")
        hardware, track, case = parts
        for kind, name, table in (("hardware", hardware, HARDWARE), ("track", track, TRACKS)):
            if name not in table:
                raise UsageError(f"cell {text!r}: {kind} {name!r}: expected {' or '.join(table)}")
        if not NAME.fullmatch(case):
            raise UsageError(f"cell {text!r}: {case!r} cannot be the name of a case")
        return cls(hardware, track, case)


def platform_of(hardware: str, provenance: Mapping[str, Any]) -> str:
    """The platform of the golden that a run was compared with, by what its verdict says of it."""
    fingerprint = provenance.get("fingerprint")
    ran = fingerprint.get("platform") if isinstance(fingerprint, dict) else None
    return MEGATRON_ON_CPU if hardware == "cpu" and ran == MEGATRON_ON_CPU else HARDWARE[hardware].platform


def platforms(hardware: str) -> tuple[str, ...]:
    """Whose goldens a cell may be compared with; which one, its trainer says."""
    return (HARDWARE[hardware].platform, *((MEGATRON_ON_CPU,) if hardware == "cpu" else ()))


def case_names(folder: Path) -> list[tuple[str, str, Path]]:
    """(family, case, its folder) of every case below ``folder``, sorted.

    A case is a folder with a ``model_config.yaml``: ``<family>/<case>``, or deeper, as in newer
    checkouts of Megatron-LM. No file is opened, and no link to a folder is followed.
    """
    return list(_case_names(folder, _DEPTH))


def _case_names(folder: Path, depth: int) -> Iterator[tuple[str, str, Path]]:
    for inside in _folders(folder):
        if (inside / CASE_FILE).is_file():
            yield folder.name, inside.name, inside
        elif depth > 1:
            yield from _case_names(inside, depth - 1)


def cases_by_name(folder: Path) -> dict[str, Path]:
    """Each case's folder by its name.

    Raises:
        CaseError: two families have a case of the same name, which selectors could not tell apart.
    """
    found: dict[str, Path] = {}
    for _, name, path in case_names(folder):
        if name in found:
            raise CaseError(
                f"{path}: a case of the same name is at {found[name]}",
                "names are unique over all families: rename one of them",
            )
        found[name] = path
    return found


def cells(folder: Path) -> Iterator[Cell]:
    """Every cell: hardware, then track, then case."""
    names = sorted(cases_by_name(folder))
    for hardware in HARDWARE:
        for track in TRACKS:
            for case in names:
                yield Cell(hardware, track, case)


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            )
    except OSError:
        return []
