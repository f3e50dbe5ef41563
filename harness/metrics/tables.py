"""CSV: a header, and a row a step, as Lightning's CSVLogger writes them; empty cells say nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import MetricsError
from harness.metrics.below import named
from harness.metrics.rows import Row, has_steps, number_of, once_each, read_files, shown
from harness.metrics.series import Series

NAME = "metrics.csv"
#: What others call theirs: Ultralytics, RLlib, Keras's examples; and people.
OTHERS = (
    "results.csv", "progress.csv", "log.csv", "logs.csv", "train_log.csv", "training_log.csv", "training.csv",
    "train.csv", "history.csv", "loss.csv", "losses.csv",
)  # fmt: skip


def files(folder: Path) -> list[Path]:
    """Those of that name at any depth: ``lightning_logs/version_0/metrics.csv``."""
    return named(folder, (NAME,))


def others(folder: Path) -> list[Path]:
    """Files of other names whose header has a step."""
    return [path for path in named(folder, OTHERS) if has_steps(_header(path))]


def read(paths: Sequence[Path], *, killed: bool, notes: list[str] | None = None) -> dict[str, Series]:
    """Read the rows of each file.

    Args:
        paths: the files, the oldest first.
        killed: leave out a last row that does not end.
        notes: what was passed over is said there.

    Raises:
        MetricsError: a row with more or fewer cells than the header has, or with two of one name; no column
            of steps.
    """
    return read_files(paths, lambda path: _rows(path, killed=killed), notes)


def _rows(path: Path, *, killed: bool) -> Iterator[Row]:
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise MetricsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if killed:
        text = text[: text.rfind("\n") + 1]
    # Strict: else a quote that never ends makes one cell of all that follows.
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=not killed)
    header: list[str] | None = None
    try:
        for row in lines:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if header is None or cells == header or _is_header(cells):  # one who starts again writes it again
                header = cells
                continue
            where = f"{path}:{lines.line_num}"
            if len(cells) != len(header):
                raise MetricsError(
                    f"{where}: {len(cells)} cells ({shown(','.join(cells))}), expected {len(header)}, as the "
                    f"header has: {shown(','.join(header))}",
                    "let the header name every column, and each row be written whole",
                )
            yield Row(where, once_each(where, [*zip(header, map(_cell, cells), strict=True)]))
    except csv.Error as error:
        raise MetricsError(f"{path}:{lines.line_num}: no row of a CSV file ({error})") from error


def _delimiter(text: str) -> str:
    head = text.partition("\n")[0]
    return max(",;\t", key=head.count)


def _is_header(cells: list[str]) -> bool:
    return has_steps(cells) and not any(type(_cell(cell)) is not str for cell in cells)


def _cell(text: str) -> str | int | float:
    number = number_of(text)
    return text if number is None else number


def _header(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            head = file.readline(1 << 16).decode("utf-8-sig", errors="replace")
    except OSError:
        return []
    return [cell.strip() for row in csv.reader([head], delimiter=_delimiter(head)) for cell in row]
