"""Whether what was saved is whole: every file there, to its last byte, and its checksums as they were."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.checkpoints import distributed, foreign, hdf5, shards, stores, tensorfiles
from harness.checkpoints.archives import PICKLES, ZIP_ERRORS, Window, is_torch_file
from harness.checkpoints.distcp import read_metadata
from harness.checkpoints.folders import read_manifest, require_manifest, sha256
from harness.checkpoints.places import Places
from harness.errors import CheckpointError

_NEVER_EMPTY = (*PICKLES, ".bin", ".distcp", ".tar", ".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst")
_TORN = "the checkpoint is torn: resume from an earlier iteration"


@dataclass(frozen=True)
class Verified:
    """What :func:`verify` looked at: files, their bytes, and whether against hashes of a manifest."""

    files: int
    nbytes: int
    manifest: bool
    hashed: bool


def verify(folder: Path, *, hashes: bool = False, manifest: bool = False) -> Verified:
    """Check that a checkpoint is whole.

    With a manifest: that every file is there and has its size, and (``hashes``) its sha256. Without
    one: that every file can be opened and reaches as far as it says, that all shards are there, and
    (``hashes``) that the checksums inside archives hold.

    Args:
        manifest: a missing manifest is an error (the native trainer writes it last).

    Raises:
        CheckpointError: path, what was found, what was expected, what to do; of several, the first
            in full and the others by name.
    """
    if not folder.exists():
        raise CheckpointError(f"{folder}: not found", "take an iteration that is there")
    found = require_manifest(folder) if manifest else read_manifest(folder)
    if found is not None:
        return _verify_manifest(folder, found["files"], hashes=hashes)
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    if not files:
        raise CheckpointError(f"{folder}: holds no file", _TORN)
    torn: list[CheckpointError] = []
    for check in _checks(folder, files, hashes=hashes):
        try:
            check()
        except CheckpointError as error:
            torn.append(error)
    if torn:
        others = "".join(f"; also {error.message}" for error in torn[1:4])
        more = f"; and {len(torn) - 4} more" if len(torn) > 4 else ""
        raise CheckpointError(f"{torn[0].message}{others}{more}", torn[0].advice)
    return Verified(len(files), sum(p.stat().st_size for p in files), manifest=False, hashed=False)


def _checks(folder: Path, files: list[Path], *, hashes: bool) -> Iterator[Callable[[], object]]:
    """Of a checkpoint that has no manifest: files that belong together are looked at together."""
    rest = set(files)
    for place, own in sorted(distributed.folders(rest).items()):
        yield partial(_distributed, place, hashes=hashes)
        rest -= set(own)
    found = stores.find(rest)
    if said := stores.unlooked(found):
        yield partial(_unlooked, f"{folder}: {said}")
    for store in found:
        rest -= set(store.files)
        if not said:
            yield partial(stores.verify, store)
    for held in shards.gather(rest):
        yield partial(_shards, held)
    for file in sorted(rest):
        yield partial(_file, file, hashes=hashes)


def _unlooked(said: str) -> None:
    raise CheckpointError(said, stores.ADVICE)


def _shards(held: shards.Shards) -> None:
    shards.require(held)
    if not any(file.suffix == tensorfiles.SUFFIX for file in held.files):
        return  # each is looked at by itself
    for _ in shards.entries(held, lambda path: path.name, lambda _: ()):
        pass


def _distributed(folder: Path, *, hashes: bool) -> None:
    found = read_metadata(folder)
    held = [*found.objects.values(), *(item for tensor in found.tensors.values() for item in tensor.items)]
    for item in held:
        if item.length == 0:
            continue
        with item.path.open("rb") as file:
            window = Window(file, item.start, item.length)
            if window.read(4) == b"PK\x03\x04":
                _zip(window, f"{item.path} ({item.name})", checksums=hashes)


def _zip(file: Window | Path, where: str, *, checksums: bool) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip() if checksums else None
    except ZIP_ERRORS as cause:
        raise CheckpointError(f"{where}: cut or damaged ({cause})", _TORN) from cause
    if damaged:
        raise CheckpointError(f"{where}: {damaged} does not match its checksum", _TORN)


def _file(path: Path, *, hashes: bool) -> None:
    foreign.require_content(path, path.stat().st_size)
    if path.suffix in _NEVER_EMPTY and path.stat().st_size == 0:
        raise CheckpointError(f"{path}: has 0 bytes", _TORN)
    if path.suffix == ".json":
        foreign.read_table(path)
    elif path.suffix == tensorfiles.SUFFIX:
        tensorfiles.read_header(path)
    elif foreign.is_archive(path) or path.suffix in (".npy", *hdf5.SUFFIXES):
        for _ in foreign.entries(path, path.name, Places()):
            pass
        if path.suffix in hdf5.SUFFIXES:
            hdf5.require_whole(path)
        elif hashes and path.suffix != ".npy":
            _zip(path, str(path), checksums=True)
    elif path.suffix in (".pt", ".pth", ".ckpt") or is_torch_file(path):
        foreign.require_saved(path)
        if hashes and zipfile.is_zipfile(path):
            _zip(path, str(path), checksums=True)
    elif path.suffix in PICKLES:
        _pickle(path)


def _pickle(path: Path) -> None:
    """That a pickle of a protocol which says so begins and ends as one."""
    with path.open("rb") as file:
        start = file.read(2)
        file.seek(-1, io.SEEK_END)
        last = file.read(1)
    if start[:1] == b"\x80" and start[1] <= pickle.HIGHEST_PROTOCOL and last != pickle.STOP:
        raise CheckpointError(f"{path}: ends with {last!r}, expected {pickle.STOP!r}, a pickle's end", _TORN)


def _verify_manifest(folder: Path, files: Mapping[str, Any], *, hashes: bool) -> Verified:
    for name, about in files.items() if hashes else ():
        digest = sha256(folder / name)
        if digest != about.get("sha256"):
            expected = str(about.get("sha256"))[:12]
            raise CheckpointError(
                f"{folder / name}: sha256 {digest[:12]}…, expected {expected}…",
                "the file was changed or damaged after it was saved: resume from an earlier iteration",
            )
    total = sum(int(about["bytes"]) for about in files.values())
    return Verified(len(files), total, manifest=True, hashed=hashes)
