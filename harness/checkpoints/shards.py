"""Tensors spread over several files (``model-00001-of-00002.safetensors`` …) as one table, as if it were one.

An index (``model.safetensors.index.json``) says which file holds what; without one the files' names say how
many there are. Neither the order of tensors nor how they were spread is state.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from harness.checkpoints import components
from harness.checkpoints.archives import Stored
from harness.checkpoints.entries import Entry, Part
from harness.checkpoints.tensorfiles import SUFFIX, Header, read_header
from harness.errors import CheckpointError

#: ``model-00001-of-00002.safetensors``, and what torch's distributed writer puts in front for each rank.
_SHARD = re.compile(r"(?P<rank>shard-\d{5}-)?(?P<stem>.+)-(?P<i>\d{5})-of-(?P<n>\d{5})(?P<suffix>\.\w+)")
_INDEX = re.compile(r"(?P<whole>.+)\.index(?P<variant>\.\w+)?\.json")
#: Where torch's distributed writer says which box of a tensor a file holds.
_BOXES = "DCP_SHARDING_INFO"
#: What an index says of its tensors beside where they lie; all of it follows from them.
_SUMS = ("total_size", "total_parameters")
#: What names of what a file says of itself begin with.
_ABOUT = "__metadata__."
_TORN = "the checkpoint is torn: take an earlier one"


@dataclass(frozen=True)
class Shards:
    """Files that hold one table.

    Args:
        whole: what the one file would be called.
        files: in order.
        index: the file that says which of them holds what.
        map: what it says; empty without one.
        about: its metadata.
        more: what else is in it.
    """

    whole: Path
    files: tuple[Path, ...]
    index: Path | None
    map: Mapping[str, Path]
    about: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)


def gather(files: Collection[Path]) -> list[Shards]:
    """Those of files that are shards; a file that stands beside the whole one is none.

    Args:
        files: of one checkpoint.
    """
    there = set(files)
    found = [shards for path in sorted(there) if (shards := _indexed(path, there)) is not None]
    taken = {file for shards in found for file in shards.files} | {shards.whole for shards in found}
    counted: dict[Path, list[tuple[Path, re.Match[str]]]] = {}
    for path in sorted(there - taken):
        match = _SHARD.fullmatch(path.name)
        if match and match["suffix"] == SUFFIX:
            counted.setdefault(path.with_name(match["stem"] + SUFFIX), []).append((path, match))
    for whole, held in counted.items():
        totals = {match["n"] for _, match in held}
        if whole not in there | taken and len(totals) == 1:
            found.append(Shards(whole, tuple(path for path, _ in held), None, {}, {}))
    return found


def _indexed(path: Path, there: Collection[Path]) -> Shards | None:
    match = _INDEX.fullmatch(path.name)
    if match is None or not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # whoever reads it as a file of its own says so
    where = content.pop("weight_map", None) if isinstance(content, dict) else None
    if not isinstance(where, dict) or not where or not all(isinstance(file, str) for file in where.values()):
        return None
    name, variant = PurePosixPath(match["whole"]), match["variant"] or ""
    whole = path.with_name(f"{name.stem}{variant}{name.suffix}")  # of one folder, of two precisions
    if whole in there:
        return None
    if any(PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts for file in where.values()):
        return None
    places = {str(name): path.parent / file for name, file in where.items()}
    files = set(places.values())
    for other in there:
        one = _SHARD.fullmatch(other.name)
        if one and one["rank"] and other.parent == path.parent and one["stem"] + one["suffix"] == whole.name:
            files.add(other)
    said = content.pop("metadata", {})
    said = said if isinstance(said, dict) else {"metadata": said}
    return Shards(whole, tuple(sorted(files)), path, places, said, content)


def missing(shards: Shards) -> str:
    """Which file of them is not there; empty where all are."""
    gone = [file.name for file in shards.files if not file.is_file()]
    if gone and shards.index is not None:
        return f"{shards.files[0].with_name(gone[0])}: not found, {shards.index.name} names it"
    matches = [match for file in shards.files if (match := _SHARD.fullmatch(file.name))]
    if shards.index is None and not any(match["rank"] for match in matches):
        there = {int(match["i"]) for match in matches}
        first = matches[0]
        for number in range(1, int(first["n"]) + 1):
            if number not in there and not (number == int(first["n"]) and 0 in there):  # some count from 0
                name = f"{first['stem']}-{number:05d}-of-{first['n']}{first['suffix']}"
                return f"{shards.whole.with_name(name)}: not found; found {len(there)} of {int(first['n'])}"
    return ""


def require(shards: Shards) -> None:
    """Check that all of them are there.

    Raises:
        CheckpointError: one is not.
    """
    if problem := missing(shards):
        raise CheckpointError(problem, _TORN)


def entries(
    shards: Shards, where: Callable[[Path], str], leaves: Callable[[Path], Iterable[Entry]]
) -> Iterator[Entry]:
    """One table of all of them, named without their files.

    Args:
        where: a file's name in the checkpoint.
        leaves: what a file that is no safetensors holds.

    Raises:
        CheckpointError: one is missing or torn, or does not hold what the index says.
    """
    require(shards)
    homes: dict[str, dict[Path, Entry]] = {}
    boxes: dict[Path, Mapping[str, Any]] = {}
    said: dict[str, dict[str, str]] = {}
    for file in shards.files:
        if file.suffix == SUFFIX:
            header = read_header(file)
            boxes[file] = _boxes(file, header)
            for key, text in header.metadata.items():
                if key != _BOXES:
                    said.setdefault(key, {})[text] = where(file)
            held: Iterable[Entry] = tensors(file, header, where(file))
        else:
            held = leaves(file)
        for entry in held:
            homes.setdefault(entry.name, {})[file] = entry
    for name, file in shards.map.items():
        if file not in homes.get(name, {}) and not any(key.startswith(f"{name}.") for key in homes):
            index = shards.index.name if shards.index else ""
            raise CheckpointError(f"{file}: holds no {name}, {index} says so", _TORN)
    for name, copies in homes.items():
        spread = {file: boxes[file][name] for file in copies if name in boxes.get(file, ())}
        if len(spread) == len(copies):
            yield _assembled(name, copies, spread)
            continue
        home = shards.map.get(name, next(iter(copies)))
        for file, entry in copies.items():
            yield entry if file == home else entry.named(f"{name} in {file.name}")
    for key, texts in said.items():
        yield about(key, " | ".join(sorted(texts)), next(iter(texts.values())))
    for key, value in shards.about.items():
        if key not in _SUMS and shards.index is not None:
            yield about(key, json.dumps(value, sort_keys=True), where(shards.index))
    for key, value in shards.more.items():
        if shards.index is not None:
            text = json.dumps(value, sort_keys=True)
            yield replace(about(key, text, where(shards.index)), name=f"index.{key}", key=f"index.{key}")


def tensors(file: Path, header: Header, where: str) -> Iterator[Entry]:
    """Those of one file of safetensors."""
    for i, (name, stored) in enumerate(header.tensors.items()):
        component = components.foreign(name, where)
        if component == "unknown" and stored.sizes:
            component = "weights"
        part = Part((0,) * len(stored.sizes), stored.sizes, (str(file), i), _always(stored))
        parts = () if 0 in stored.sizes else (part,)
        # A rule leaves out what is said about a file: no tensor is, whatever it is called.
        key = f"tensor {name}" if name.startswith(_ABOUT) else name
        yield Entry(name, component, stored.dtype, stored.sizes, parts, key=key, file=where)
        if said := header.packed.get(name, "").encode():
            more = f"{key} (type)"
            yield Entry(f"{name} (type)", component, "text", (len(said),), data=said, key=more, file=where)


def about(key: str, text: str, where: str) -> Entry:
    """What a file says of itself beside its tensors."""
    data = text.encode("utf-8", "surrogatepass")
    name = f"{_ABOUT}{key}"
    return Entry(name, components.foreign(key), "text", (len(data),), data=data, key=name, file=where)


def _always(stored: Stored) -> Callable[[], Stored]:
    return lambda: stored


def _boxes(file: Path, header: Header) -> Mapping[str, Any]:
    """Where in a tensor each of a file begins, by name; empty for all other writers."""
    if _BOXES not in header.metadata:
        return {}
    try:
        content = json.loads(header.metadata[_BOXES])
        found = {name: tuple(each["saved_offsets"]) for name, each in content.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as cause:
        raise CheckpointError(f"{file}: its {_BOXES} is damaged ({cause!r:.80})", _TORN) from cause
    for name, offsets in found.items():
        sizes = header.tensors[name].sizes if name in header.tensors else ()
        if len(offsets) != len(sizes) or not all(type(n) is int and 0 <= n < 1 << 63 for n in offsets):
            raise CheckpointError(f"{file}: {name} begins at {list(offsets)!r:.80}, which it cannot", _TORN)
    return found


def _assembled(name: str, copies: Mapping[Path, Entry], spread: Mapping[Path, tuple[int, ...]]) -> Entry:
    """One tensor of the boxes that several files hold; ranks that hold the same one hold copies."""
    first = next(iter(copies.values()))
    if any((e.dtype, len(e.shape)) != (first.dtype, len(first.shape)) for e in copies.values()):
        raise CheckpointError(f"{next(iter(copies))}: {name} is of other types in other files", _TORN)
    parts: dict[tuple[tuple[int, ...], tuple[int, ...]], Part] = {}
    more: list[Part] = []
    shape = tuple(
        max(spread[file][i] + entry.shape[i] for file, entry in copies.items())
        for i in range(len(first.shape))
    )
    for file, entry in copies.items():
        for part in entry.parts:
            box = (spread[file], part.sizes)
            placed = replace(part, offsets=spread[file])
            if box in parts:
                more.append(placed)
            parts.setdefault(box, placed)
    return replace(first, shape=shape, parts=tuple(parts.values()), copies=tuple(more), file="")
