"""What the commands print: tables for people, JSON for machines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from harness.text import strict_json


def flag_json(command: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    command.add_argument("--json", action="store_true", help="for machines")


def flag_since(command: argparse.ArgumentParser, otherwise: str = "any night") -> None:
    """Add ``--since``."""
    command.add_argument(
        "--since", metavar="TIME",
        help="when the night began, e.g. 2026-11-27T01:02:03Z: what ran before is old, and red; "
        f"default: {otherwise}",
    )  # fmt: skip


def flags_select(command: argparse.ArgumentParser) -> None:
    """Add ``--hardware`` and ``--track``."""
    for name, more in (("hardware", "; gpu is all but cpu"), ("track", "")):
        command.add_argument(
            f"--{name}", metavar="NAME", action="append", default=[],
            help=f"only this{more}; may be given more than once",
        )  # fmt: skip


def as_json(content: object) -> None:
    """Print one JSON document; NaN and infinity, which JSON has not, as words."""
    print(strict_json(content), end="")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; nothing in it is taken for markup, and nothing is cut off."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from harness.report.tables import print_table

    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(plain(str(cell))) for cell in row))
    print_table(Console(file=sys.stdout, highlight=False, markup=False), shown)


def line(text: str) -> None:
    """Print one line, whatever is in it."""
    print(plain(text))


def plain(text: str) -> str:
    """Text from a file, without what could steer a terminal or break a line."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
