"""Of HDF5, links, attributes of any type and what is empty are compared as well, or said to be uncompared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.checkpoints import diff

pytestmark = pytest.mark.tools


def soft(file: Any, step: int) -> None:
    import h5py

    file["other"] = np.ones(3)
    file["best"] = h5py.SoftLink("/w" if step == 1 else "/other")


def compound(file: Any, step: int) -> None:
    file.attrs["at"] = np.array((step, 2.0), dtype=[("step", "i4"), ("rate", "f8")])


def long(file: Any, step: int) -> None:
    file.attrs["at"] = np.longdouble(1) + np.finfo(np.longdouble).eps * step


def empty(file: Any, step: int) -> None:
    import h5py

    file.attrs["at"] = h5py.Empty("f4" if step == 1 else "i8")


def reference(file: Any, step: int) -> None:
    file["other"] = np.ones(3)
    file.attrs["at"] = file["w" if step == 1 else "other"].ref


def empty_group(file: Any, step: int) -> None:
    file.create_group("found").create_group("nothing") if step == 1 else file.create_group("found")


def named_type(file: Any, step: int) -> None:
    file["kind"] = np.dtype("f4" if step == 1 else "i8")


def empty_dataset(file: Any, step: int) -> None:
    import h5py

    file["at"] = h5py.Empty("f4" if step == 1 else "i8")


WRITERS = (soft, compound, long, empty, reference, empty_group, named_type, empty_dataset)


def written(folder: Path, write: Callable[[Any, int], None], step: int) -> Path:
    import h5py

    folder.mkdir()
    with h5py.File(folder / "state.h5", "w") as file:
        file["w"] = np.ones(3)
        write(file, step)
    return folder


@pytest.mark.parametrize("write", WRITERS)
def test_all_that_a_file_holds_is_compared(tmp_path: Path, write: Callable[[Any, int], None]) -> None:
    one = written(tmp_path / "a", write, 1)
    assert diff(one, written(tmp_path / "c", write, 1)).equal
    found = diff(one, written(tmp_path / "b", write, 2))
    assert found.entries
    assert found.coverage.uncompared == 0


def elsewhere(file: Any, step: int) -> None:
    import h5py

    file["at"] = h5py.ExternalLink(f"/nowhere/{step}.h5", "/w")


def time(file: Any, _step: int) -> None:
    import h5py

    h5py.h5d.create(file.id, b"at", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((2,)))


@pytest.mark.parametrize("write", [elsewhere, time])
def test_what_is_not_read_is_uncompared(tmp_path: Path, write: Callable[[Any, int], None]) -> None:
    found = diff(written(tmp_path / "a", write, 1), written(tmp_path / "b", write, 2))
    assert (found.equal, found.compared) == (False, 1)
    assert found.coverage.uncompared > 0
