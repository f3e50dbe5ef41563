"""New goldens take the place of old ones: all of them or none, and none beside the provenance of another."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.goldens.golden import side_file


def swap(goldens: Sequence[tuple[Path, Path]], *, aside: Path) -> None:
    """Rename goldens that are wholly written, with their side files, to where they belong.

    What ends it half way puts everything back. What ends the very process between two renames leaves one
    golden without a provenance: then it is compared by tolerance, never exactly with another's.

    Args:
        goldens: (new, where it belongs), each with its side file beside it, on one file system.
        aside: a folder that is not there yet; keeps the old files meanwhile.

    Raises:
        OSError: a file cannot be renamed; nothing was changed.
    """
    folders = sorted({path.parent for _, path in goldens})
    made = [folder for folder in folders if not folder.exists()]
    places = [path for _, path in goldens] + [side_file(path) for _, path in goldens]
    kept = [aside / str(i) for i in range(len(places))]
    aside.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as held:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(_alone(folder))
            for path, old in zip(places, kept, strict=True):
                _keep(path, old)
            try:
                _replace(goldens)
            except BaseException:
                _put_back(goldens, dict(zip(places, kept, strict=True)))
                raise
            for folder in folders:
                _sync(folder)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # refuses when something is in it
        raise


def _replace(goldens: Sequence[tuple[Path, Path]]) -> None:
    for new, path in goldens:
        side_file(path).unlink(missing_ok=True)
        os.replace(new, path)
        os.replace(side_file(new), side_file(path))


def _put_back(goldens: Sequence[tuple[Path, Path]], kept: Mapping[Path, Path]) -> None:
    for _, path in goldens:
        # In this order: the values never stand beside the side file of the others.
        with contextlib.suppress(OSError):
            side_file(path).unlink(missing_ok=True)
        _restore(path, kept[path])
        _restore(side_file(path), kept[side_file(path)])


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others out of a folder of goldens; leaves no lock file among them."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _keep(path: Path, kept: Path) -> None:
    """One more name for a file, which takes no room on a full disk; a copy where there are no such names."""
    if not (path.exists() or path.is_symlink()):
        return
    try:
        os.link(path, kept, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, kept, follow_symlinks=False)


def _restore(path: Path, kept: Path) -> None:
    with contextlib.suppress(OSError):
        if kept.exists() or kept.is_symlink():
            os.replace(kept, path)
        else:
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """The new names are on the disk; not every file system can say so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
