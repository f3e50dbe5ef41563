"""Folders of checkpoints: trackers, iterations, manifests."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.checkpoints.archives import read_json
from harness.errors import CheckpointError

TRACKER = "latest_checkpointed_iteration.txt"
MANIFEST = "manifest.json"
_ITERATION = re.compile(r"iter_(\d{7,})")
_TORN = "the checkpoint is torn: resume from an earlier iteration"


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal; read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def iter_dir(folder: Path, iteration: int) -> Path:
    """``folder/iter_0000050``, whether it exists or not."""
    return folder / f"iter_{iteration:07d}"


def iterations(folder: Path) -> tuple[int, ...]:
    """Iterations that have a folder, ascending."""
    found = (_ITERATION.fullmatch(p.name) for p in folder.glob("iter_*") if p.is_dir())
    return tuple(sorted(int(match[1]) for match in found if match))


def latest(folder: Path) -> int | None:
    """The iteration that the tracker names; None when there is no tracker.

    Raises:
        CheckpointError: the tracker holds no iteration, or names one that is not there.
    """
    tracker = folder / TRACKER
    try:
        with tracker.open("rb") as file:
            raw = file.read(64)
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise CheckpointError(f"{tracker}: cannot be read: {cause.strerror}") from cause
    text = raw.decode("ascii", "replace").strip()
    there = ", ".join(map(str, iterations(folder))) or "none"
    if not (text.isascii() and text.isdigit()):
        found = repr(text[:40]) if raw else "0 bytes"
        raise CheckpointError(
            f"{tracker}: found {found}, expected an iteration number",
            f"write the iteration to resume from into it; there are: {there}",
        )
    iteration = int(text)
    target = iter_dir(folder, iteration)
    if not target.is_dir():
        raise CheckpointError(
            f"{tracker}: names iteration {iteration}, but {target.name} is not there; found: {there}",
            "the tracker was written before the checkpoint, or the checkpoint was removed: "
            "name an iteration that is there",
        )
    return iteration


def read_manifest(folder: Path) -> Mapping[str, Any] | None:
    """The manifest with sizes checked against the files; None when there is none.

    Raises:
        CheckpointError: not a manifest, or a file is missing or has another size.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: has 0 bytes, expected a manifest", _TORN)
    manifest = read_json(path)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not isinstance(manifest.get("layout"), dict):
        return None  # somebody else's manifest.json
    for name, about in files.items():
        if not isinstance(about, dict) or type(about.get("bytes")) is not int:
            raise CheckpointError(f"{path}: {name}: found {about!r:.60}, expected bytes and sha256")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(f"{path}: names {name}, outside the checkpoint")
        target = folder / name
        if not target.is_file():
            raise CheckpointError(f"{target}: not found, expected by {MANIFEST}", _TORN)
        size = target.stat().st_size
        if size != about["bytes"]:
            raise CheckpointError(f"{target}: has {size} bytes, expected {about['bytes']}", _TORN)
    checked: Mapping[str, Any] = manifest
    return checked


def require_manifest(folder: Path) -> Mapping[str, Any]:
    """:func:`read_manifest` of a checkpoint that must have one: the native trainer writes it last.

    Raises:
        CheckpointError: there is none, and as there.
    """
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest
    path = folder / MANIFEST
    if path.is_file():
        raise CheckpointError(f"{path}: lists no files, expected the manifest of a checkpoint", _TORN)
    raise CheckpointError(
        f"{folder}: has no {MANIFEST}, which is written when everything else is there",
        "the save was not finished: resume from an earlier iteration",
    )
