"""A table on whatever reads it: a terminal has a width, a file or a pipe has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ENOUGH: Final = 1 << 16  # columns; no row is as long


def print_table(console: Console, table: Table) -> None:
    """Print a table; where no terminal ends a line, no cell is broken over two, so that a search finds it."""
    if console.file.isatty():
        console.print(table)
        return
    from rich.measure import Measurement

    table.width = Measurement.get(console, console.options.update(max_width=_ENOUGH), table).maximum
    console.print(table, soft_wrap=True)
