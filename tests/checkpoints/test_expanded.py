"""Few bytes that stand for many: told in one sentence, soon, and in little memory."""

from __future__ import annotations

import pickle
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.checkpoints import diff, fingerprint, open_checkpoint
from harness.checkpoints.entries import Entry, Part
from harness.checkpoints.tallying import Tallying
from harness.errors import CheckpointError
from tests.checkpoints.made import dist, save

MEMORY = 3 << 30  # bytes of address space


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def views(count: int) -> dict[str, torch.Tensor]:
    """Each all of one storage, which is stored once."""
    base = torch.ones(1 << 20)
    return {str(i): base.view(-1) for i in range(count)}


MANY: dict[str, Callable[[], Any]] = {
    "stride 0": lambda: torch.ones(1).expand(10**15),
    "stride 0 in one dimension": lambda: torch.ones(4, 1).expand(4, 10**13),
    "a bool": lambda: torch.ones(1, dtype=torch.bool).expand(1 << 62),
    "overlapping rows": lambda: torch.arange(10**5).as_strided((5 * 10**4, 5 * 10**4), (1, 1)),
    "a parameter": lambda: torch.nn.Parameter(torch.ones(1).expand(10**12)),
    "many views of one storage": lambda: views(500),
    "a few expanded ones together": lambda: [torch.ones(1).expand(10**7) for _ in range(100)],
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("what", MANY)
def test_a_file_whose_tensors_repeat_it_without_end_is_refused(
    what: str, tmp_path: Path, *, legacy: bool
) -> None:
    path = save({"w": MANY[what]()}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"a\.pt: a tensor of shape .* repeats what is stored"):
        open_checkpoint(path)


@pytest.mark.parametrize("verb", ["diff", "show", "verify"])
def test_every_command_says_so_in_one_sentence_and_exit_2(verb: str, tmp_path: Path) -> None:
    path = save({"w": torch.ones(1).expand(10**15)}, tmp_path / "a.pt")
    words = [sys.executable, "-m", "harness", "checkpoint", verb, path, *([path] if verb == "diff" else [])]
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, timeout=60, preexec_fn=limited
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "repeats what is stored" in done.stderr


def test_a_distributed_checkpoint_whose_items_are_one_slice_is_refused(tmp_path: Path) -> None:
    folder = dist(tmp_path / "a", {"w": torch.ones(1 << 14)})
    path = folder / ".metadata"
    found = pickle.loads(path.read_bytes())
    (index, place), about = next(iter(found.storage_data.items())), found.state_dict_metadata["w"]
    for i in range(9000):
        name = f"w{i}"
        found.state_dict_metadata[name] = about
        found.storage_data[type(index)(name, index.offset, index.index)] = place
    path.write_bytes(pickle.dumps(found))
    with pytest.raises(CheckpointError, match="repeats what is stored"):
        diff(folder, folder)


def test_a_tensor_that_a_distributed_checkpoint_only_claims_is_refused(tmp_path: Path) -> None:
    folder = dist(tmp_path / "a", {"w": torch.ones(4)})
    path = folder / ".metadata"
    found = pickle.loads(path.read_bytes())
    about = found.state_dict_metadata["w"]
    about.size = about.chunks[0].sizes = torch.Size([10**15])
    path.write_bytes(pickle.dumps(found))
    with pytest.raises(CheckpointError):
        diff(folder, folder)


def test_the_blocks_of_a_tensor_are_not_counted_before_its_bytes_are_looked_for() -> None:
    def nothing() -> Any:
        raise CheckpointError("its bytes are not there")

    part = Part((0,), (10**15,), ("", 0), nothing)
    entry = Entry("w", "weights", "float32", (10**15,), (part,))
    with pytest.raises(CheckpointError, match="not there"), Tallying() as tallying:
        tallying.tally(entry, entry)


def twice(levels: int) -> Any:
    """A nest of 2 to the power of ``levels`` leaves, stored in a few bytes a level."""
    nest: Any = (1, 2)
    for _ in range(levels):
        nest = (nest, nest)
    return nest


class Set:
    """Pickled as a set that no Python makes: it would have to hash all of it."""

    def __reduce__(self) -> Any:
        return set, ([twice(40), 1],)


def test_a_set_that_holds_itself_many_times_over_is_refused(tmp_path: Path) -> None:
    path = save({"w": Set()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="a set of more than 1000000 parts"):
        open_checkpoint(path)


def test_a_numpy_array_of_more_than_it_has_is_refused(tmp_path: Path) -> None:
    kind = np.dtype("f4")
    rebuild = np.zeros(1, kind).__reduce__()[0]

    class Array:
        def __init__(self, shape: tuple[int, ...]) -> None:
            self.shape = shape

        def __reduce__(self) -> Any:
            return rebuild, (np.ndarray, (0,), b"b"), (1, self.shape, kind, False, b"\0" * 4)

    for shape in ((10**15,), (10**30,), (-1,), (1 << 62, 1 << 62)):
        with pytest.raises(CheckpointError, match=r"a\.pt"):
            open_checkpoint(save({"w": Array(shape)}, tmp_path / "a.pt"))


HONEST: dict[str, Callable[[], Any]] = {
    "expanded": lambda: torch.ones(1).expand(5),
    "expanded to a block and more": lambda: torch.arange(3.0)[:, None].expand(3, 1 << 20),
    "overlapping windows": lambda: torch.arange(100.0).unfold(0, 10, 1),
    "tied": lambda: list(views(3).values()),
    "sparse": lambda: torch.eye(3).to_sparse().sparse_resize_((10**9, 10**9), 2, 0),
    "nothing of a great shape": lambda: torch.empty(0, 10**15),
    "sets": lambda: {frozenset({("a", 1), ("b", 2)}), "c", 1.5},
}


@pytest.mark.parametrize("what", HONEST)
def test_what_is_expanded_and_can_be_read_is_compared(what: str, tmp_path: Path) -> None:
    a, b = (save({"w": HONEST[what]()}, tmp_path / name) for name in ("a.pt", "b.pt"))
    assert diff(a, b).equal
    assert fingerprint(a) == fingerprint(b)


def test_an_expanded_tensor_is_the_same_as_its_copy(tmp_path: Path) -> None:
    one = torch.arange(3.0)[:, None].expand(3, 4)
    a, b = save({"w": one}, tmp_path / "a.pt"), save({"w": one.clone()}, tmp_path / "b.pt")
    assert diff(a, b).equal
    c = save({"w": (one.clone() + torch.eye(3, 4))}, tmp_path / "c.pt")
    assert [entry.differing for entry in diff(a, c).entries] == [3]


class Called:
    """Pickled as a call with one text as each of its arguments."""

    def __reduce__(self) -> Any:
        return pickle.Pickler, ("x" * (1 << 20),) * 4000


TEXT = "x" * (1 << 20)
REPEATED: dict[str, Callable[[], Any]] = {
    "a list of one text": lambda: [TEXT] * 5000,
    "a table of one text": lambda: dict.fromkeys(range(5000), TEXT),
    "lists of one text": lambda: [[TEXT, i, []] for i in range(5000)],
    "a call with one text": Called,
}


def compared_with_itself(path: Path) -> tuple[int, str]:
    words = [sys.executable, "-m", "harness", "checkpoint", "diff", str(path), str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, preexec_fn=limited)
    return done.returncode, done.stderr


@pytest.mark.parametrize("what", REPEATED)
@pytest.mark.parametrize("ending", ["pkl", "pt"])
def test_one_text_that_is_used_many_times_over_fits_into_memory(
    tmp_path: Path, what: str, ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "pt":
        save({"w": REPEATED[what]()}, path)
    else:
        path.write_bytes(pickle.dumps(REPEATED[what]()))
    status, said = compared_with_itself(path)
    # A pickle is compared as bytes then; of a call that is all it is, the text is not read.
    assert (status, len(said.splitlines())) in ((0, 0), (2, 1)), said
    assert not said or "MiB" in said or "more than" in said


def test_an_archive_of_empty_lines_fits_into_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(8):
            archive.writestr(f"{i}.txt", "\n" * (4 << 20))
    assert compared_with_itself(tmp_path / "a.zip") == (0, "")
