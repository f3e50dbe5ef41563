"""Put goldens into the store: all of them or none, each with what it changes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import GoldenError, HarnessError
from harness.goldens.compare import MetricDiff, compare
from harness.goldens.sources import Source, load, plain

if TYPE_CHECKING:
    from harness.metrics import Series


@dataclass(frozen=True, eq=False)
class Planned:
    """A golden that is to be written.

    Args:
        path: where; below the store.
        series: its values.
        provenance: its side file.
        source: where the values are from.
        remarks: what is not as the source has it.
    """

    path: Path
    series: Mapping[str, Series]
    provenance: Mapping[str, Any]
    source: Path
    remarks: tuple[str, ...] = ()

    def changes(self) -> list[MetricDiff] | str:
        """The old golden (A) against this one (B); a sentence where there is no old one to read."""
        if not self.path.exists():
            return "new"
        try:
            old = load(str(self.path), self.path.parent)
        except HarnessError as error:
            return f"the old one was broken: {error.message}"
        return compare(old, Source(str(self.source), plain(self.series)))


def put(store: Path, planned: Sequence[Planned]) -> None:
    """Write all of them, or none.

    Everything is written beside the store's files first, so what can fail has failed before the
    first of them is touched; then they are renamed into place.

    Raises:
        GoldenError: a series that no golden may hold, or the disk is full or read-only.
    """
    made = not store.exists()
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store, prefix=".new-") as folder:
            _put(store, planned, Path(folder))
    except OSError as error:
        raise GoldenError(f"{store}: cannot be written: {error}", "nothing was changed") from error
    finally:
        if made:
            with contextlib.suppress(OSError):
                store.rmdir()  # refuses when something is in it


def _put(store: Path, planned: Sequence[Planned], folder: Path) -> None:
    from harness.goldens import side_file, write

    new, old = folder / "new", folder / "old"
    for golden in planned:
        write(new / golden.path.relative_to(store), golden.series, golden.provenance)
    touched: list[Path] = []
    try:
        for golden in planned:
            values, side = golden.path, side_file(golden.path)
            values.parent.mkdir(parents=True, exist_ok=True)
            for path in (values, side):
                _keep(path, old / path.relative_to(store))
                touched.append(path)
            # A golden without its side file is never compared exactly, one with another's might be.
            side.unlink(missing_ok=True)
            for path in (values, side):
                os.replace(new / path.relative_to(store), path)
    except OSError:
        for path in reversed(touched):
            _restore(path, old / path.relative_to(store))
        raise


def _keep(path: Path, kept: Path) -> None:
    if path.exists() or path.is_symlink():
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, kept, follow_symlinks=False)


def _restore(path: Path, kept: Path) -> None:
    with contextlib.suppress(OSError):
        if kept.exists() or kept.is_symlink():
            os.replace(kept, path)
        else:
            path.unlink(missing_ok=True)
            path.parent.rmdir()  # refuses when something else is in it
