"""Nothing in a checkpoint is executed, and what is torn is said to be, by its file."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.checkpoints import diff, fingerprint, open_checkpoint, safe_reader, verify
from harness.errors import CheckpointError
from tests.checkpoints.made import dist, ranks, save, state


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def zipped(path: Path, pickled: bytes) -> Path:
    """A pickle in a file as ``torch.save`` writes it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    return path


EVIL: dict[str, tuple[Any, str]] = {
    "os.system": (Call(os.system, "touch executed"), "posix.system"),
    "eval": (Call(eval, "open('executed', 'w')"), "builtins.eval"),
    "exec": (Call(exec, "open('executed', 'w')"), "builtins.exec"),
    "open": (Call(open, "executed", "w"), "io.open"),
    "import": (Call(__import__, "os"), "builtins.__import__"),
    "mkdir": (Call(os.mkdir, "executed"), "posix.mkdir"),
}


@pytest.mark.parametrize("kind", EVIL)
@pytest.mark.parametrize("inside", ["zip", "deep"])
def test_call_in_a_pickle_is_refused_by_its_name(
    kind: str, inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, name = EVIL[kind]
    nest = {"model": {"w": [1, call]}} if inside == "deep" else call
    path = zipped(tmp_path / "model.pt", pickle.dumps(nest))
    with pytest.raises(CheckpointError, match=name) as error:
        open_checkpoint(path)
    assert str(path) in error.value.message
    assert "nothing in a checkpoint is executed" in error.value.advice
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"cposix\nsystem\n(S'touch executed'\ntR.",  # REDUCE
        b"(S'touch executed'\niposix\nsystem\n.",  # INST
        b"(cposix\nsystem\nS'touch executed'\no.",  # OBJ
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0etouch executed\x85R.",  # STACK_GLOBAL
        b"\x80\x02cposix\nsystem\n(S'touch executed'\nt\x81.",  # NEWOBJ
        b"ctorch\nSize\n}S'__call__'\nS'x'\nsb.",  # BUILD on a function
        b"cargparse\nNamespace\n}S'__reduce__'\nS'x'\nsb.",  # BUILD on a class
        b"ctorch\nfloat32\n}S'name'\nS'x'\nsb.",  # BUILD on a dtype
        b"\x82\x01.",  # EXT1
        b"Pid\n.",  # PERSID where none may be
        b"ctorch._utils\n_rebuild_tensor_v2\n(I1\nI0\n(I2\nt(I1\nttR.",  # a tensor without a storage
        b"cbuiltins\ngetattr\n(cposix\nsystem\nS'__call__'\ntR.",
        b"cmegatron.evil\nrun\n(S'x'\ntR",  # cut
    ],
)
def test_every_way_to_call_something_is_refused(
    pickled: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        open_checkpoint(zipped(tmp_path / "model.pt", pickled))
    assert not (tmp_path / "executed").exists()


def test_class_of_megatron_is_a_record_and_nothing_of_it_is_imported(tmp_path: Path) -> None:
    pickled = b"cmegatron.core.enums\nModelType\n(I1\ntR."
    found = open_checkpoint(zipped(tmp_path / "model.pt", pickled))
    assert found.names() == ["ModelType"]


def test_evil_metadata_of_a_distributed_checkpoint_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = dist(tmp_path / "d", {"w": torch.ones(2)})
    (folder / ".metadata").write_bytes(pickle.dumps(EVIL["os.system"][0]))
    for read in (open_checkpoint, fingerprint, lambda path: safe_reader(path).read_metadata()):
        with pytest.raises(CheckpointError, match=r"posix\.system"):
            read(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("path", ["../_0.distcp", "/etc/passwd_"])
def test_distributed_checkpoint_that_points_outside_is_refused(tmp_path: Path, path: str) -> None:
    folder = dist(tmp_path / "d", {"w": torch.ones(2)})
    data = (folder / ".metadata").read_bytes()
    assert b"__0_0.distcp" in data
    (folder / ".metadata").write_bytes(data.replace(b"__0_0.distcp", path.encode()))
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        open_checkpoint(folder)


def test_pickled_object_in_a_distributed_checkpoint_is_not_loaded_for_training(tmp_path: Path) -> None:
    folder = dist(tmp_path / "d", {"w": torch.ones(2), "extra": {"a": 1}})
    with pytest.raises(CheckpointError, match=r"extra.* is a pickled object"):
        safe_reader(folder).read_metadata()


# -- torn --------------------------------------------------------------------------------------


def read_all(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    for name in checkpoint.names():
        checkpoint.read(name)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_file_cut_anywhere_is_refused_by_its_name(tmp_path: Path, *, legacy: bool) -> None:
    path = save(
        {"w": torch.ones(64), "step": 3}, tmp_path / "model.pt", _use_new_zipfile_serialization=not legacy
    )
    whole = path.read_bytes()
    for size in {0, 1, 14, 100, len(whole) // 2, len(whole) - 200, len(whole) - 1} - {len(whole)}:
        path.write_bytes(whole[: max(size, 0)])
        with pytest.raises(CheckpointError, match=r"model\.pt"):
            read_all(path)


@pytest.mark.parametrize("victim", ["__0_0.distcp", ".metadata"])
@pytest.mark.parametrize("how", ["gone", "empty", "half"])
def test_torn_distributed_checkpoint_is_refused_by_file(tmp_path: Path, victim: str, how: str) -> None:
    path = dist(tmp_path / "d", state()) / victim
    data = path.read_bytes()
    path.unlink() if how == "gone" else path.write_bytes(data[: len(data) // 2 if how == "half" else 0])
    with pytest.raises(CheckpointError, match=victim.replace(".", r"\.")):
        read_all(tmp_path / "d")


def test_rank_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = ranks(tmp_path / "a", state(), tp=2)
    (folder / "mp_rank_00").rename(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"mp_rank_00.*not found"):
        open_checkpoint(folder)


def test_shard_that_does_not_fit_its_tensor_is_refused(tmp_path: Path) -> None:
    path = ranks(tmp_path / "a", state(), tp=2) / "mp_rank_01" / "model_optim_rng.pt"
    content = torch.load(path, weights_only=True)
    name = next(iter(content["shards"]))
    content["shards"][name] = ([6, 4], [5, 0])
    save(content, path)
    with pytest.raises(CheckpointError, match="does not fit"):
        open_checkpoint(tmp_path / "a")


def test_compressed_or_foreign_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="is compressed"):
        open_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    with pytest.raises(CheckpointError, match=r"without data\.pkl"):
        open_checkpoint(path)


def test_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    path = save({"w": torch.ones(8)}, tmp_path / "model.pt")
    data = path.read_bytes()
    # (8,) as BININT1 8, TUPLE1: the size; the first is the storage's number of elements.
    at = data.rindex(b"K\x08\x85")
    path.write_bytes(data[:at] + b"K\x50\x85" + data[at + 3 :])
    with pytest.raises(CheckpointError):
        read_all(path)


def test_nest_that_is_too_deep_or_too_wide_is_refused(tmp_path: Path) -> None:
    nest: Any = 1
    for _ in range(150):
        nest = [nest, "x"]
    with pytest.raises(CheckpointError, match="nested deeper than"):
        open_checkpoint(save(nest, tmp_path / "deep.pt"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("asks", [b"r\xff\xff\xff\x0f", b"p268435455\n"])
def test_five_bytes_do_not_ask_for_gigabytes(tmp_path: Path, protocol: int, asks: bytes) -> None:
    whole = [
        b"r\xff\xff\xff\x7f",
        "r\n\xff" * 99,
        2**90,
        -1.5,
        {"p9": {1, 2}},
        frozenset("a"),
        bytearray(b"r~~~~"),
    ]
    held = pickle.dumps([*whole, *(f"{i}" for i in range(400))], protocol)
    assert open_checkpoint(zipped(tmp_path / "a.pt", held)).entries
    with pytest.raises(CheckpointError, match="room for 268435455 values"):
        open_checkpoint(zipped(tmp_path / "b.pt", held[:-1] + asks + b"."))


def test_more_containers_than_a_state_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="more than 16000000 objects"):
        open_checkpoint(zipped(tmp_path / "a.pt", b"(" + b"}" * 16_000_001 + b"l."))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    nest = {"w": torch.ones(4), "s": [1, "a"]}
    return save(nest, tmp_path_factory.mktemp("saved") / "model.pt").read_bytes()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_file_is_read_or_refused_and_nothing_else(
    data: st.DataObject, saved: bytes, tmp_path: Path
) -> None:
    content = bytearray(saved)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    try:
        read_all(path)
        diff(path, path)
        verify(path, hashes=True)
    except CheckpointError as error:
        assert "model.pt" in str(error)  # noqa: PT017 - an error is one of two good ends
