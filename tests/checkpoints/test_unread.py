"""A file that cannot be read is uncompared and named; all others are compared."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.checkpoints import alike, diff, fingerprint, open_checkpoint, verify
from harness.checkpoints.fingerprints import fingerprint_of
from harness.checkpoints.rules import Rule
from harness.commands.cli import main
from harness.errors import CheckpointError
from harness.protocol.state_checks import all_is_read, saved_state
from tests.checkpoints.made import dist, ranks, save, state


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def harmful(path: Path) -> None:
    path.unlink()
    torch.save({"x": Harm()}, path)


def no_json(path: Path) -> None:
    path.rename(path.with_name("bad.json"))
    path.with_name("bad.json").write_text('{"a": ')


def checkpoint(folder: Path, value: float) -> Path:
    save({"state": {0: {"exp_avg": torch.full((3,), value)}}}, folder / "optimizer.pt")
    save({"w": torch.ones(2), "more": torch.ones(3)}, folder / "bad.pt")
    return folder


@pytest.mark.parametrize("break_it", [cut, harmful, no_json])
@pytest.mark.parametrize("sides", ["a", "b", "ab"])
def test_one_file_that_cannot_be_read_stops_no_other(
    tmp_path: Path, break_it: Callable[[Path], None], sides: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one, same, other = (checkpoint(tmp_path / name, v) for name, v in (("a", 1.0), ("same", 1.0), ("b", 2.0)))
    for folder, side in ((one, "a"), (same, "b"), (other, "b")):
        if side in sides:
            break_it(folder / "bad.pt")
    found = diff(one, same)
    assert not found.entries or break_it is no_json
    assert not found.equal
    assert found.coverage.uncompared
    file = "bad.json" if break_it is no_json else "bad.pt"
    assert file in found.unread[file]
    names = {entry.name for entry in diff(one, other).entries}
    assert "optimizer.pt:state.0.exp_avg" in names
    assert main(["checkpoint", "diff", str(one), str(same)]) == 1
    assert f"not compared: {file}: " in capsys.readouterr().out
    checks = saved_state(found, [], 7)
    assert [check.name for check in checks if not check.passed][-1] == "state: all of it is compared"
    assert any(found.unread[file] in check.message for check in checks)


def test_digests_of_what_can_be_read_are_made_and_say_what_is_not_in_them(tmp_path: Path) -> None:
    one, other = checkpoint(tmp_path / "a", 1.0), checkpoint(tmp_path / "b", 2.0)
    for folder in (one, other):
        cut(folder / "bad.pt")
    a, b = fingerprint_of(one), fingerprint_of(other)
    assert a.coverage.uncompared
    assert a.digests["optimizer"] != b.digests["optimizer"]
    assert [check.passed for check in all_is_read(a.coverage, a.unread)] == [False]
    assert "bad.pt" in all_is_read(a.coverage, a.unread)[0].message


def test_a_rule_may_leave_such_a_file_out(tmp_path: Path) -> None:
    one, other = checkpoint(tmp_path / "a", 1.0), checkpoint(tmp_path / "b", 1.0)
    cut(other / "bad.pt")
    rules = [Rule("case", "*", "written by something else", "bad.pt")]
    assert diff(one, other, rules=rules).equal


def test_a_file_that_is_damaged_where_its_tensors_lie_stops_no_other(tmp_path: Path) -> None:
    one, other = checkpoint(tmp_path / "a", 1.0), checkpoint(tmp_path / "b", 2.0)
    data = bytearray((one / "bad.pt").read_bytes())
    at = data.index(b"PK\x03\x04", data.index(b"data/0") - 40)
    data[at : at + 4] = b"XXXX"  # the header in front of a tensor's bytes
    (one / "bad.pt").write_bytes(data)
    found = diff(one, other)
    assert [entry.name for entry in found.entries] == ["optimizer.pt:state.0.exp_avg"]
    assert "bad.pt" in found.unread
    assert not found.equal
    assert fingerprint_of(one).coverage.uncompared


def test_a_rank_s_file_that_is_torn_stops_no_other_s(tmp_path: Path) -> None:
    folders = []
    for side, value in (("a", 1.0), ("b", 2.0)):
        for rank in range(2):
            folder = tmp_path / side / f"mp_rank_{rank:02d}"
            save({"w": torch.full((3,), value), "x": 1}, folder / "model_optim_rng.pt")
        folders.append(tmp_path / side)
    cut(folders[1] / "mp_rank_01" / "model_optim_rng.pt")
    found = diff(*folders)
    assert [entry.name for entry in found.entries] == ["mp_rank_00/model_optim_rng:w"]
    assert list(found.unread) == ["mp_rank_01/model_optim_rng.pt"]


def test_a_native_checkpoint_with_a_torn_rank_is_not_whole(tmp_path: Path) -> None:
    one, other = (ranks(tmp_path / name, state(), tp=2) for name in "ab")
    cut(other / "mp_rank_01" / "model_optim_rng.pt")
    found = diff(one, other)
    assert any(entry.reason == "incomplete in b" for entry in found.entries)
    assert not found.equal


def test_a_distributed_folder_that_is_torn_does_not_hide_what_lies_beside_it(tmp_path: Path) -> None:
    for side, value in (("a", 1), ("b", 2)):
        folder = dist(tmp_path / side, {"w": torch.ones(3)})
        save({"rng": torch.tensor([value])}, folder / "rng.pt")
    (tmp_path / "b" / ".metadata").write_bytes(b"")
    found = diff(tmp_path / "a", tmp_path / "b")
    assert [entry.name for entry in found.entries] == ["rng.pt:rng"]
    assert ".metadata" in found.unread


def test_a_checkpoint_of_which_nothing_can_be_read_is_one_clear_error(tmp_path: Path) -> None:
    save({"w": torch.ones(2)}, tmp_path / "a" / "model.pt")
    cut(tmp_path / "a" / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt.*cut or damaged"):
        open_checkpoint(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        verify(tmp_path / "a")


# -- files of many values ---------------------------------------------------------------------------


def tokenizer(folder: Path, tokens: int, *, last: str = "b", weight: float = 0.0) -> Path:
    vocab = {f"t{i}": i for i in range(tokens)}
    merges = [[f"a{i}", f"b{i}"] for i in range(2 * tokens)] + [["a", last]]
    save({"w": torch.full((3,), weight)}, folder / "model.pt")
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab, "merges": merges}}))
    return folder


def test_a_vocabulary_costs_what_its_bytes_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, same = (tokenizer(tmp_path / name, 130_000) for name in ("a", "same"))
    other = tokenizer(tmp_path / "b", 130_000, weight=9.0)
    assert (one / "tokenizer.json").stat().st_size > alike.LEAST
    with monkeypatch.context() as patch:
        patch.setattr("harness.checkpoints.foreign.read_json", None)  # it is not read
        found = diff(one, same)
        assert found.equal
        assert found.coverage.files.compared == 2
        assert "tokenizer.json:bytes" in open_checkpoint(one, as_bytes=[one / "tokenizer.json"]).entries
        assert [entry.name for entry in diff(one, other).entries] == ["model.pt:w"]
    start = time.process_time()
    fingerprint(one)  # there is nothing to compare it with: it is read, as one text for each table
    assert time.process_time() - start < 20
    assert len(open_checkpoint(one).entries) == 3


def test_a_vocabulary_that_differs_is_found_to_differ(tmp_path: Path) -> None:
    one, other = (tokenizer(tmp_path / name, 1001, last=name) for name in "ab")
    found = diff(one, other).entries
    assert [entry.name for entry in found] == ["tokenizer.json:model.merges"]
    assert str(found[0].a).endswith("['a', 'a']")


def test_more_values_than_are_walked_are_compared_as_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.checkpoints.flatten.LEAF_LIMIT", 1000)
    short = 500
    paths = []
    for name, last in (("a", 1), ("same", 1), ("b", 2)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps([{"x": 1}] * short + [{"y": 1}] * short + [{"z": last}]))
        paths.append(path)
    assert diff(paths[0], paths[1]).equal
    assert [entry.name for entry in diff(paths[0], paths[2]).entries] == ["bytes"]
    assert not diff(paths[0], paths[2]).coverage.uncompared


def test_a_long_list_of_objects_in_a_pickle_is_walked(tmp_path: Path) -> None:
    for name, last in (("a", 1), ("b", 2)):
        rows: list[Any] = [f"id{i}" for i in range(2000)] + [{"seen": last}]
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(rows))
    assert [e.name for e in diff(tmp_path / "a.pkl", tmp_path / "b.pkl").entries] == ["2000.seen"]
