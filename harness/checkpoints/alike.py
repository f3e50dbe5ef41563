"""Large files that are the same byte for byte on both sides: what they hold need not be looked at.

A vocabulary of 260,000 tokens is the same in every checkpoint of a run.
"""

from __future__ import annotations

from pathlib import Path

from harness.checkpoints.foreign import files_below

#: Smaller files are read: what they hold is counted under its own names.
LEAST = 4 << 20
#: Files that are read value by value. Tensors are compared as fast as bytes are.
_BY_VALUE = (".json", ".pkl", ".pickle")
_PIECE = 1 << 20


def equal_files(one: Path, two: Path) -> tuple[frozenset[Path], frozenset[Path]]:
    """Large files of values that have the same name and bytes in two folders; or the two themselves."""
    if one.is_file() and two.is_file():
        pairs = [(one, two)]
    elif one.is_dir() and two.is_dir():
        pairs = [(file, two / file.relative_to(one)) for file in files_below(one) if _is_large(file)]
    else:
        pairs = []
    same = [pair for pair in pairs if all(map(_is_large, pair)) and _same(*pair)]
    return frozenset(a for a, _ in same), frozenset(b for _, b in same)


def _is_large(file: Path) -> bool:
    return file.suffix in _BY_VALUE and file.is_file() and file.stat().st_size >= LEAST


def _same(a: Path, b: Path) -> bool:
    if a.stat().st_size != b.stat().st_size:
        return False
    try:
        with a.open("rb") as one, b.open("rb") as two:
            while piece := one.read(_PIECE):
                if piece != two.read(_PIECE):
                    return False
    except OSError:
        return False  # whoever reads it says why
    return True
