"""The cases that a store's goldens belong to, as far as they can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.cases import Case


@dataclass(frozen=True)
class KnownCase:
    """A case by name.

    Args:
        name: its folder's.
        path: its folder.
        state: whether the harness runs it.
        reason: why not; empty when it does.
        case: the case itself, when its file can be read.
    """

    name: str
    path: Path
    state: Literal["run", "not run", "unreadable"]
    reason: str
    case: Case | None

    def iterations(self, platform: str | None) -> int | None:
        """How many iterations it trains on a platform (on its GPUs, for one we do not know)."""
        from harness.matrix import HARDWARE

        if self.case is None:
            return None
        known = [name for name, hardware in HARDWARE.items() if hardware.platform == platform]
        try:
            return self.case.train_iters(known[0] if known else "h100")
        except HarnessError:
            return None

    def stores(self, root: Path) -> list[Path]:
        """Where its goldens may lie: beside it, or below ``root`` by its name."""
        return [folder for folder in (self.path, root / self.name) if folder.is_dir()]


def known_cases(path: Path, cases: Path | None) -> Mapping[str, KnownCase]:
    """By name: the cases below ``path``; with none there, those of ``cases`` or of its neighbour."""
    from harness.matrix import case_names

    found = case_names(path) if path.is_dir() else []
    for folder in (cases, path.parent / "test_cases", path.parent):
        if not found and folder is not None and folder.is_dir():
            found = case_names(folder)
    return {name: _known(name, where) for _, name, where in found}


def _known(name: str, where: Path) -> KnownCase:
    from harness.cases import load_case
    from harness.case_tools.reasons import reason_not_run

    folder = where if where.is_dir() else where.parent
    try:
        case = load_case(where)
    except HarnessError as error:
        return KnownCase(name, folder, "unreadable", error.message, None)
    reason = reason_not_run(case)
    return KnownCase(name, folder, "not run" if reason else "run", reason or "", case)
