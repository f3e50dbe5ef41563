"""Parts of the documentation that commands write."""

from __future__ import annotations

from pathlib import Path


def write_region(path: Path, name: str, text: str, *, part: str = "") -> None:
    """Put ``text`` between the marks of ``name`` in a Markdown file; both are made where they lack.

    Args:
        part: of the name, where a command writes several regions.
    """
    begin = f"<!-- {name}{part}: begin (written by python -m tests.{name}) -->"
    end = f"<!-- {name}{part}: end -->"
    before = path.read_text() if path.is_file() else "# Detection\n"
    head, found, rest = before.partition(begin)
    _, _, tail = rest.partition(end)
    if not found:
        head, tail = f"{before.rstrip()}\n\n## {name.capitalize()}\n\n", "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}")
