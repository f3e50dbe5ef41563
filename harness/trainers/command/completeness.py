"""Is a checkpoint whole, by the rules of its own format? Standard library only, and nothing is executed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_TEXT = 16 << 20  # bytes; a larger JSON file is not parsed while somebody waits
_ZIPPED = (".pt", ".pth", ".bin", ".ckpt", ".npz", ".keras", ".zip")
_HEADER = 100 << 20  # bytes


def uncommitted(parts: Iterable[Path]) -> str:
    """What is still to come without which nobody loads it; "" when nothing is."""
    for folder in {path.parent for path in _files(parts) if path.suffix == ".distcp"}:
        if not (folder / ".metadata").is_file():
            return f"{folder / '.metadata'} is not there yet"
    return ""


def cut_off(parts: Iterable[Path]) -> str:
    """What ends before it should; "" when nothing does."""
    for path in _files(parts):
        with contextlib.suppress(OSError):
            if why := _cut_off(path):
                return f"{path} {why}"
    return ""


def lacking(parts: Iterable[Path], earlier: Iterable[Path], *, but: str = "") -> str:
    """What the checkpoint before had, and this one has not (yet); "" when nothing.

    Args:
        but: the name of a file that is not asked for.
    """
    here = {_kind(part, path) for part in parts for path in _files([part])}
    for part in earlier:
        for path in _files([part]):
            if path.name != but and _kind(part, path) not in here:
                return f"nothing is there as {path}"
    return ""


def _kind(part: Path, path: Path) -> str:
    return re.sub(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?", "#", os.path.join(part.name, os.path.relpath(path, part)))


def _files(parts: Iterable[Path]) -> Iterator[Path]:
    for part in parts:
        if not part.is_dir():
            yield part
        for here, _, names in os.walk(part):
            yield from (Path(here, name) for name in sorted(names))


def _cut_off(path: Path) -> str:
    size = path.stat().st_size
    if path.name.endswith(".index.json") and size <= _TEXT:
        names = _json(path)
        files = names.get("weight_map") if isinstance(names, dict) else None
        wanted = sorted(set(map(str, files.values()))) if isinstance(files, dict) else []
        missing = [name for name in wanted if not (path.parent / name).is_file()]
        return f"names {missing[0]}, which is not there" if missing else ""
    if path.suffix == ".json":
        return "is cut off" if 0 < size <= _TEXT and _json(path) is None else ""
    if path.suffix == ".safetensors":
        return "is cut off" if size < _safetensors(path) else ""
    if path.suffix in _ZIPPED and size:
        with path.open("rb") as file:
            begins = file.read(4)
        return "is cut off" if begins == b"PK\x03\x04" and not zipfile.is_zipfile(path) else ""
    return ""


def _json(path: Path) -> object:
    """What a file holds; None where it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return False if found is None else found


def _safetensors(path: Path) -> int:
    """The bytes that a file of this format has by its own header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not length or length > _HEADER:
            return 8
        try:
            header = json.loads(file.read(length))
            ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
            return 8 + length + max(ends, default=0)
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return 8 + length + 1
