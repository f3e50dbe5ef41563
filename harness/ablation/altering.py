"""Alter some entries of a checkpoint in place, and nothing else.

Nothing is unpickled or pickled anew: the bytes of a tensor, the argument of a value's operation in a pickle,
the digits of a number in JSON are written over where they stand, in a copy of the file which then takes its
place. Checksums in archives and hashes in the native trainer's manifest are kept true.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from harness.ablation.seals import seal
from harness.ablation.sites import Patch, Run, Site, Sites
from harness.ablation.written import Unalterable
from harness.checkpoints.archives import read_json
from harness.checkpoints.checkpoint import Checkpoint, iteration_of, open_checkpoint
from harness.checkpoints.distcp import METADATA, read_metadata
from harness.checkpoints.entries import Entry
from harness.checkpoints.folders import MANIFEST, sha256
from harness.checkpoints.ledger import Ledger
from harness.checkpoints.placed import Placed, placing
from harness.checkpoints.rules import Rule
from harness.errors import CheckpointError

_SHOWN = 3


@dataclass(frozen=True)
class Alterable:
    """A saved entry that the gate's comparison counts as state.

    Args:
        name: as ``harness checkpoint diff`` prints it.
        component: the design's word for what it belongs to.
        dtype, nbytes: of its values.
        file: that it lies in, relative to the checkpoint; the first, where it is spread over several.
        reason: why it cannot be altered; empty where it can.
        together: names of other entries that lie in the same bytes: who alters one alters all of them.
    """

    name: str
    component: str
    dtype: str
    nbytes: int
    file: str
    reason: str = ""
    together: tuple[str, ...] = ()


def alterable(checkpoint: Path, rules: Sequence[Rule] = ()) -> tuple[Alterable, ...]:
    """Every saved entry that is compared as state, in order of the file; what rules take out is not listed.

    Args:
        checkpoint: an iteration's folder, a folder with a tracker (its latest), any folder, or one file.
        rules: what the comparison leaves out.

    Raises:
        CheckpointError: there is none, or nothing in it can be read.
    """
    held = _opened(checkpoint)
    ledger = Ledger([held], rules)
    found = []
    with Sites(held) as sites:
        where, reasons = _sites(held.entries.values(), sites)
        partners = _partners(where)
        for name, entry in held.entries.items():
            if name in ledger.excluded:
                continue
            files = held.files_of(entry)
            found.append(
                Alterable(
                    name,
                    entry.component,
                    entry.dtype,
                    entry.nbytes,
                    files[0] if files else "",
                    reasons.get(name, ""),
                    partners.get(name, ()),
                )
            )
    return tuple(found)


def alter(checkpoint: Path, names: Collection[str]) -> None:
    """Alter entries of a checkpoint and only these, and those that lie in the same bytes, in place.

    A file is replaced as a whole, or not at all; other names of it (hard links) keep what it was. Links are
    followed: what they lead to is altered.

    Args:
        checkpoint: as for :func:`alterable`.
        names: of entries, as ``harness checkpoint diff`` prints them.

    Raises:
        CheckpointError: there is no such entry, or it cannot be altered.
    """
    held = _opened(checkpoint)
    unknown = sorted(set(names) - held.entries.keys())
    if unknown:
        raise CheckpointError(
            f"{checkpoint}: holds no {', '.join(unknown[:_SHOWN])}",
            "harness checkpoint alter --list prints the names",
        )
    wanted = [held.entries[name] for name in dict.fromkeys(names)]
    files: dict[Path, list[Site]] = {}
    with Sites(held) as sites:
        where, reasons = _sites(wanted, sites)
        for name, reason in reasons.items():
            raise CheckpointError(f"{checkpoint}: {name} cannot be altered: {reason}")
        for site in (site for found in where.values() for site in found):
            files.setdefault(site.path, []).append(site)
    slices = _slices(held)
    for path, touched in files.items():
        _rewrite(path, _apart(touched), slices)
    _keep_manifest(iteration_of(Path(checkpoint)), files.keys())


def _opened(checkpoint: Path) -> Checkpoint:
    """A checkpoint whose plain values know where they lie, where that can be found out."""
    plain = open_checkpoint(checkpoint)
    with placing():
        try:
            placed: Mapping[str, Entry] = open_checkpoint(checkpoint).entries
        except CheckpointError:
            placed = {}
    entries = {}
    for name, entry in plain.entries.items():
        other = placed.get(name)
        known = other is not None and (other.dtype, other.shape, other.data) == (
            entry.dtype,
            entry.shape,
            entry.data,
        )
        entries[name] = replace(entry, spots=other.spots) if other is not None and known else entry
    return replace(plain, entries=entries)


def _value(entry: Entry) -> tuple[object, ...]:
    return entry.dtype, entry.shape, entry.data


def _sites(entries: Iterable[Entry], sites: Sites) -> tuple[dict[str, tuple[Site, ...]], dict[str, str]]:
    """Where entries lie, and why those that cannot be altered cannot; by name."""
    found: dict[str, tuple[Site, ...]] = {}
    reasons: dict[str, str] = {}
    for entry in entries:
        try:
            found[entry.name] = sites.of(entry)
            if not found[entry.name]:
                reasons[entry.name] = "nothing known would be another value"
        except Unalterable as cause:
            reasons[entry.name] = str(cause)
        except CheckpointError as cause:
            reasons[entry.name] = cause.message
    return found, reasons


def _partners(where: Mapping[str, Sequence[Site]]) -> dict[str, tuple[str, ...]]:
    """Which entries lie in the same bytes, by name."""
    pieces: dict[Path, list[tuple[int, int, str, Site]]] = {}
    for name, found in where.items():
        for site in found:
            pieces.setdefault(site.path, []).append((*site.spans, name, site))
    pairs: dict[str, dict[str, None]] = {}
    for held in pieces.values():
        held.sort(key=lambda piece: piece[:2])
        open_: list[tuple[int, int, str, Site]] = []
        for piece in held:
            open_ = [each for each in open_ if each[1] > piece[0]]
            for other in open_:
                if other[2] != piece[2] and _overlap(other[3], piece[3]):
                    pairs.setdefault(other[2], {})[piece[2]] = None
                    pairs.setdefault(piece[2], {})[other[2]] = None
            open_.append(piece)
    return {name: tuple(others) for name, others in pairs.items()}


def _overlap(one: Site, two: Site) -> bool:
    """Whether two sites, between whose first and last bytes the others' lie, have bytes in common."""
    if not (isinstance(one, Run) and isinstance(two, Run)) or (one.dense and two.dense):
        return True
    import numpy as np

    sets = [
        (run.places()[:, None] * run.stored.itemsize + np.arange(run.stored.itemsize) + run.stored.position)
        for run in (one, two)
    ]
    return bool(np.intersect1d(*(found.reshape(-1) for found in sets)).size)


def _apart(found: Sequence[Site]) -> list[Site]:
    """Sites without those that others hold: what is altered twice would be what it was."""
    kept: list[Site] = []
    open_: list[Site] = []
    for site in sorted(found, key=lambda each: (each.spans[0], -each.spans[1])):
        start, stop = site.spans
        open_ = [each for each in open_ if each.spans[1] > start]
        sharing = [each for each in open_ if _overlap(each, site)]
        if any(each.spans[1] < stop for each in sharing):
            said = "entries share some of their bytes, and each has others"
            raise CheckpointError(f"{site.path}: {said}", "alter one of them at a time")
        if not sharing:
            kept.append(site)
            open_.append(site)
    return kept


def _slices(checkpoint: Checkpoint) -> dict[Path, list[tuple[int, int]]]:
    """Archives inside of the files of torch's distributed format, by the file, links followed."""
    found: dict[Path, list[tuple[int, int]]] = {}
    folders = {(checkpoint.path / file).parent for file in checkpoint.files if Path(file).name == METADATA}
    for folder in folders:
        try:
            metadata = read_metadata(folder)
        except CheckpointError:
            continue
        items = [
            *metadata.objects.values(),
            *(item for each in metadata.tensors.values() for item in each.items),
        ]
        for item in items:
            found.setdefault(Path(os.path.realpath(item.path)), []).append((item.start, item.length))
    return found


def _rewrite(path: Path, sites: Sequence[Site], slices: Mapping[Path, Sequence[tuple[int, int]]]) -> None:
    """Put an altered copy of a file in its place."""
    with _replacing(path) as copy:
        longer = [site for site in sites if isinstance(site, Patch) and not site.same_length]
        if longer:
            held = bytearray(copy.read_bytes())
            for site in sorted(sites, key=lambda each: each.spans, reverse=True):
                site.apply(held)
            copy.write_bytes(held)
            return
        with copy.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            for site in sites:
                site.apply(mapped)
            seal(mapped, slices.get(path, [(0, len(mapped))]), [site.spans for site in sites])
            mapped.flush()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A copy of a file, which takes its place when all is done."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
        os.close(handle)
        copy = Path(name)
        try:
            shutil.copyfile(path, copy)
            about = path.stat()
            copy.chmod(about.st_mode & 0o7777 | 0o200)
            yield copy
            os.utime(copy, ns=(about.st_atime_ns, about.st_mtime_ns))
            copy.chmod(about.st_mode & 0o7777)
            copy.replace(path)
        finally:
            copy.unlink(missing_ok=True)
    except OSError as cause:
        raise CheckpointError(f"{path}: cannot be altered: {cause.strerror or cause}") from cause


def _keep_manifest(folder: Path, altered: Collection[Path]) -> None:
    """Let a manifest say what the files are now."""
    manifest = folder / MANIFEST
    if not folder.is_dir() or not manifest.is_file():
        return
    with placing():
        held = read_json(manifest)
    files = held.get("files") if isinstance(held, dict) else None
    patches = []
    for name, about in (files if isinstance(files, dict) else {}).items():
        file = folder / name
        if Path(os.path.realpath(file)) not in altered or not isinstance(about, dict):
            continue
        for key, value in (("bytes", str(file.stat().st_size)), ("sha256", sha256(file))):
            said = about.get(key)
            if isinstance(said, Placed):
                patches.append(Patch(manifest, said.spot.start, said.spot.stop, value.encode()))
    if patches:
        real = Path(os.path.realpath(manifest))
        with _replacing(real) as copy:
            content = bytearray(copy.read_bytes())
            for patch in sorted(patches, key=lambda each: each.start, reverse=True):
                patch.apply(content)
            copy.write_bytes(content)
