"""Put goldens into the store: all of them or none, each with what it changes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import GoldenError, HarnessError
from harness.goldens.compare import MetricDiff, compare
from harness.goldens.sources import Source, load, plain
from harness.goldens.swapping import swap

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
        rounded: metrics that the source has rounded.
    """

    path: Path
    series: Mapping[str, Series]
    provenance: Mapping[str, Any]
    source: Path
    remarks: tuple[str, ...] = ()
    rounded: tuple[str, ...] = ()

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
    from harness.goldens import unfit, write

    for golden in planned:
        if problems := unfit(golden.series):
            raise GoldenError(f"{golden.path}: {'; '.join(problems)}", "the run is not fit to record")
    news = [folder / "new" / golden.path.relative_to(store) for golden in planned]
    for golden, new in zip(planned, news, strict=True):
        write(new, golden.series, golden.provenance, rounded=golden.rounded)
    swap([(new, golden.path) for golden, new in zip(planned, news, strict=True)], aside=folder / "old")
