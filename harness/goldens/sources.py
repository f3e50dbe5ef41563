"""What ``show`` and ``diff`` are given: a golden's file, a cell, or the results of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import GoldenError, UsageError
from harness.goldens import reading

if TYPE_CHECKING:
    from harness.metrics import Series

Values = Mapping[str, Mapping[int, float]]
#: What is wrong with a file's heads, not with its values; lint reports it.
_NO_MATTER = ("wrong-start", "wrong-end", "gap", "off-grid")


@dataclass(frozen=True)
class Source:
    """Series by metric and step, and where they are from.

    Args:
        label: what to call it.
        values: by metric, then by step.
        provenance: what the side file says; empty without one.
    """

    label: str
    values: Values
    provenance: Mapping[str, Any] = field(default_factory=dict)


def load(what: str, goldens: Path) -> Source:
    """Load a file, a results folder, or the golden of a cell.

    Raises:
        GoldenError: it is broken; the first thing that is wrong, with its key.
        UsageError: there is no such thing.
    """
    path = Path(what)
    if path.is_file():
        return _file(path)
    if path.is_dir():
        return _results(path)
    if what.count("/") == 2 and not path.is_absolute():
        return _cell(what, goldens)
    if reading.is_link_to_nowhere(path):
        raise UsageError(f"{what}: a symbolic link that leads nowhere", "check the path")
    raise UsageError(
        f"{what}: is neither a file, nor a folder of results, nor a cell",
        "a cell is hardware/track/case",
    )


def _file(path: Path) -> Source:
    content = reading.read(path)
    for problem in content.problems:
        if problem.kind in _NO_MATTER:
            continue
        where = f"{path}: {problem.key}" if problem.key else str(path)
        raise GoldenError(f"{where}: {problem.message}")
    if content.kind != "curves":
        raise GoldenError(f"{path}: holds lists (inference), expected curves by step", "")
    values = {metric: curve.finite() for metric, curve in content.curves.items()}
    return Source(str(path), values, provenance(path))


def provenance(path: Path) -> Mapping[str, Any]:
    """The side file of a golden; empty without one."""
    side = path.with_name(path.stem + ".provenance.json")
    if not side.is_file():
        return {}
    try:
        if side.stat().st_size > reading.SIZE_LIMIT:
            raise GoldenError(f"{side}: is larger than {reading.SIZE_LIMIT >> 20} MiB")
        found = json.loads(side.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise GoldenError(f"{side}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise GoldenError(f"{side}: holds no object, expected a provenance")
    return found


def _cell(what: str, goldens: Path) -> Source:
    from harness.goldens import resolve
    from harness.matrix import Cell, platforms

    cell = Cell.parse(what)
    golden = resolve(goldens, cell.case, cell.track, *platforms(cell.hardware))
    if golden is None:
        raise UsageError(f"{what}: there is no golden for it in {goldens}", "record one with --golden-update")
    source = _file(golden.path)
    return replace(source, label=f"{source.label} (fallback)") if golden.fallback else source


def _results(path: Path) -> Source:
    """The uninterrupted run of a cell's results."""
    from harness.metrics import read_metrics

    phase = path / "continuous"
    if not phase.is_dir():
        raise UsageError(
            f"{path}: holds no continuous/, expected the results of one cell",
            "results lie in <results>/<hardware>/<track>/<case>",
        )
    return Source(str(path), plain(read_metrics(phase / "tensorboard", phase)))


def plain(series: Mapping[str, Series]) -> Values:
    """Series as values by step; of a repeated step the last."""
    return {name: dict(zip(one.steps.tolist(), one.numbers(), strict=True)) for name, one in series.items()}
