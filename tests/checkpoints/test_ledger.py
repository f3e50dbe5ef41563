"""Every file, entry and copy is compared, left out by a rule that is shown, or red."""

from __future__ import annotations

import collections
import datetime as dt
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.checkpoints import diff, fingerprint, open_checkpoint
from harness.checkpoints.circumstances import circumstances, only_plain
from harness.checkpoints.compare import StateDiff
from harness.checkpoints.coverage import Count
from harness.checkpoints.distances import distances
from harness.checkpoints.fingerprints import fingerprint_of
from harness.checkpoints.places import Places, of_checkpoints, of_results
from harness.checkpoints.rules import Rule
from tests.checkpoints.made import WEIGHT, dist, ranks, save, state


def names(found: StateDiff) -> list[str]:
    return [entry.name for entry in found.entries]


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "one", "two", "name"),
    [
        ("sampler.yaml", "epoch: 3\nposition: 16\n", "epoch: 3\nposition: 0\n", "sampler.yaml:line 2"),
        ("step.txt", "7", "8", "step.txt:line 1"),
        ("order.csv", "1,2\n3,4", "1,2\n4,3", "order.csv:line 2"),
        ("state.toml", "seen = 1", "seen = 2", "state.toml:line 1"),
        ("train.log", "a", "b", "train.log:line 1"),
        ("metadata.json", '{"position": 1}', '{"position": 2}', "metadata.json:position"),
        ("manifest.json", '{"files": {"x": 1}}', '{"files": {"x": 2}}', "manifest.json:files.x"),
        ("README.md", "x", "y", "README.md:line 1"),
        ("blob", "\0a", "\0b", "blob:bytes"),
    ],
)
def test_no_kind_of_file_beside_is_passed_over(
    tmp_path: Path, file: str, one: str, two: str, name: str
) -> None:
    for side, text in (("a", one), ("b", two)):
        save({"w": torch.ones(2)}, tmp_path / side / "model.pt")
        (tmp_path / side / file).write_text(text)
    found = diff(tmp_path / "a", tmp_path / "b")
    assert names(found) == [name]
    assert found.coverage.files == Count(2)
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")


def test_files_beside_the_folders_of_ranks_and_in_them_are_compared(tmp_path: Path) -> None:
    for side, value in (("a", 1), ("b", 2)):
        save({"w": torch.ones(2)}, tmp_path / side / "mp_rank_00" / "model_optim_rng.pt")
        save({"rng": torch.tensor([value])}, tmp_path / side / "rng.pt")
        (tmp_path / side / "mp_rank_00" / "optim.bin").write_bytes(bytes([value, 0, 255]))
    assert names(diff(tmp_path / "a", tmp_path / "b")) == ["mp_rank_00/optim.bin:bytes", "rng.pt:rng"]


def test_files_beside_a_native_checkpoint_are_compared(tmp_path: Path) -> None:
    for side, value in (("a", 1), ("b", 2)):
        save({"seen": value}, ranks(tmp_path / side, state()) / "extra.pt")
    assert names(diff(tmp_path / "a", tmp_path / "b")) == ["extra.pt:seen"]


def test_what_a_native_file_holds_beside_its_tensors_is_compared(tmp_path: Path) -> None:
    for side, value in (("a", 1), ("b", 2)):
        path = ranks(tmp_path / side, state()) / "mp_rank_00" / "model_optim_rng.pt"
        content = torch.load(path, weights_only=True)
        torch.save(content | {"seen": value}, path)
    assert names(diff(tmp_path / "a", tmp_path / "b")) == ["mp_rank_00/model_optim_rng.pt:seen"]


def test_somebodys_distributed_checkpoint_is_not_the_native_one_for_its_names(tmp_path: Path) -> None:
    for side, value in (("a", 1.0), ("b", 2.0)):
        folder = dist(tmp_path / side, {"model.w": torch.ones(3), "iteration": torch.tensor(7)})
        save({"rng": torch.full((3,), value)}, folder / "rng_rank0.pt")
    found = diff(tmp_path / "a", tmp_path / "b")
    assert names(found) == ["rng_rank0.pt:rng"]
    assert not found.gaps_a


def test_a_linked_folder_is_walked_into_and_a_circle_has_an_end(tmp_path: Path) -> None:
    for side, value in (("a", "1"), ("b", "2")):
        (tmp_path / f"far-{side}").mkdir()
        (tmp_path / f"far-{side}" / "position.txt").write_text(value)
        save({"w": 1}, tmp_path / side / "model.pt")
        (tmp_path / side / "data").symlink_to(tmp_path / f"far-{side}")
        (tmp_path / f"far-{side}" / "back").symlink_to(tmp_path / f"far-{side}")
    assert names(diff(tmp_path / "a", tmp_path / "b")) == ["data/position.txt:line 1"]


def test_a_link_that_leads_nowhere_is_compared_as_where_it_leads(tmp_path: Path) -> None:
    for side in "ab":
        save({"w": 1}, tmp_path / side / "model.pt")
        (tmp_path / side / "latest").symlink_to(f"gone-{side}")
    assert names(diff(tmp_path / "a", tmp_path / "b")) == ["latest:link"]


def test_one_file_against_two_compares_the_one_that_both_have(tmp_path: Path) -> None:
    for side in "ab":
        save({"w": torch.ones(2)}, tmp_path / side / "model.pt")
    (tmp_path / "b" / "more.txt").write_text("x")
    assert names(diff(tmp_path / "a", tmp_path / "b")) == ["more.txt:line 1"]


# -- what hangs on values ------------------------------------------------------------------------


def _hung(value: Any, **attributes: Any) -> Any:
    for name, one in attributes.items():
        setattr(value, name, one)
    return value


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda v: {"p": _hung(torch.nn.Parameter(torch.ones(2)), scale=v)}, "p.scale"),
        (lambda v: {"t": _hung(torch.ones(2), scale=torch.tensor(v))}, "t.scale"),
        (lambda v: {"t": torch.ones(2, requires_grad=v > 1)}, "t.requires_grad"),
        (lambda v: {"p": torch.nn.Parameter(torch.ones(2), requires_grad=v > 1)}, "p.requires_grad"),
        (lambda v: {"m": _hung(collections.OrderedDict(w=1), _metadata={"": {"v": v}})}, "m._metadata..v"),
        (lambda v: {"d": collections.deque([1], int(v))}, "d.maxlen"),
        (lambda v: {"k": {1 if v > 1 else "1": 5}}, "k.'1'"),
    ],
)  # fmt: skip
def test_attributes_and_kinds_of_keys_count(tmp_path: Path, make: Callable[[float], Any], name: str) -> None:
    paths = [save(make(value), tmp_path / f"{value}.pt") for value in (1.0, 2.0)]
    assert diff(paths[0], paths[0]).equal
    assert name in names(diff(*paths))


def test_names_are_the_same_in_every_process(tmp_path: Path) -> None:
    path = save({(torch.bfloat16, torch.float32): {"param": torch.zeros(2)}}, tmp_path / "x.pt")
    code = f"from harness.checkpoints import open_checkpoint as o; print(o({str(path)!r}).names())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(said.replace("'", '"')) == open_checkpoint(path).names()
    assert open_checkpoint(path).names() == ["(bfloat16, float32).param"]


# -- copies and digests --------------------------------------------------------------------------


def test_a_replica_that_differs_is_in_the_diff_and_in_the_digests(tmp_path: Path) -> None:
    for side, odd in (("a", 1.0), ("b", 2.0)):
        for rank, value in enumerate((1.0, odd)):
            tensors = {"model.norm.weight": torch.full((4,), value), "iteration": torch.tensor(7)}
            ranks(tmp_path / side / f"{rank}", tensors)
            (tmp_path / side / f"{rank}" / "mp_rank_00").rename(tmp_path / side / f"mp_rank_{rank:02d}")
            (tmp_path / side / f"{rank}").rmdir()
    found = diff(tmp_path / "a", tmp_path / "b")
    assert names(found) == ["model.norm.weight"]
    assert found.coverage.copies == Count(2)
    assert fingerprint(tmp_path / "a")["weights"] != fingerprint(tmp_path / "b")["weights"]


def test_what_a_state_lacks_is_in_its_digests(tmp_path: Path) -> None:
    whole, half = state(), state()
    for tensors in (whole, half):
        tensors[f"model.{WEIGHT}"] = tensors[f"model.{WEIGHT}"].half()
    whole[f"optimizer.master.{WEIGHT}"] = whole[f"model.{WEIGHT}"].float()
    digests = [fingerprint(ranks(tmp_path / name, tensors)) for name, tensors in (("a", whole), ("b", half))]
    assert digests[0]["weights"] != digests[1]["weights"]


def test_plain_values_are_hashed_one_by_one_and_in_no_digest(tmp_path: Path) -> None:
    a = save({"w": torch.ones(2), "step": 3, "started": "Mon"}, tmp_path / "a.pt")
    b = save({"w": torch.ones(2), "step": 3, "started": "Tue"}, tmp_path / "b.pt")
    one, two = fingerprint_of(a), fingerprint_of(b)
    assert one.digests == two.digests
    assert one.values["iteration"] == two.values["iteration"]
    assert one.values["unknown"] != two.values["unknown"]
    assert fingerprint(a) != fingerprint(b)


# -- rules ---------------------------------------------------------------------------------------


def test_a_rule_leaves_out_what_it_names_and_says_so(tmp_path: Path) -> None:
    a = {"w": torch.ones(2), "run": {"host": "x", "seen": 1}}
    paths = save(a, tmp_path / "a.pt"), save({**a, "run": {"host": "y", "seen": 2}}, tmp_path / "b.pt")
    rules = (
        Rule("case", "run.host", "the machine"),
        Rule("case", "nothing*", "unused"),
        Rule("trainer", "x", "?"),
    )
    found = diff(*paths, rules=rules)
    assert names(found) == ["run.seen"]
    assert found.coverage.entries == Count(2, 1)
    assert [(r.where, r.entry, r.matched, r.reason) for r in found.coverage.rules] == [
        ("case", "run.host", 1, "the machine"), ("case", "nothing*", 0, "unused"),
    ]  # fmt: skip
    assert found.coverage.sentence() == "2 entries in 2 files compared, 1 excluded by 1 rule, 0 uncompared"
    assert fingerprint_of(paths[0], [Rule("case", "run.*", "")]) == fingerprint_of(
        paths[1], [Rule("case", "run.*", "")]
    )


def test_a_rule_for_files_leaves_out_all_that_they_hold(tmp_path: Path) -> None:
    for side in "ab":
        save({"w": 1}, tmp_path / side / "model.pt")
        (tmp_path / side / "train.log").write_text(f"{side}\n1")
    found = diff(tmp_path / "a", tmp_path / "b", rules=[Rule("case", "*", "a log", "*.log")])
    assert (found.equal, found.coverage.files, found.coverage.entries) == (True, Count(1, 1), Count(1, 2))


def test_streams_of_single_ranks_across_layouts_are_left_out_by_a_rule_that_is_shown(tmp_path: Path) -> None:
    one = ranks(tmp_path / "a", state())
    tensors = state()
    tensors["rng.default.1_0_0"] = tensors["rng.default.0_0_0"]
    found = diff(one, ranks(tmp_path / "b", tensors, tp=2), layouts_differ=True)
    assert found.equal
    assert found.coverage.entries.excluded == 2
    assert "the other layout has other ranks" in found.coverage.rules[0].reason


# -- observation ---------------------------------------------------------------------------------


def test_plain_values_that_two_uninterrupted_runs_do_not_share_become_rules(tmp_path: Path) -> None:
    for side, when in (("a", 1.5), ("b", 2.5)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "meta_10.json").write_text(
            json.dumps({"time": when, "step": 10, "pids": [int(when), 1]})
        )
        save({"w": torch.full((2,), when)}, tmp_path / side / "model_10.pt")
    difference = diff(tmp_path / "a", tmp_path / "b")
    rules, rest = circumstances(difference, 10)
    assert [(rule.entry, rule.file) for rule in rules] == [("time", "meta_#.json")]
    assert [entry.name for entry in rest] == ["meta_10.json:pids", "model_10.pt:w"]
    assert rules[0].matches("time", ["meta_20.json"])
    assert not rules[0].matches("time", ["other_20.json"])
    rules, rest = circumstances(difference, 10, lists=True)
    assert [(rule.entry, rule.words) for rule in rules] == [("pids", (0,)), ("time", ())]
    assert [entry.name for entry in rest] == ["model_10.pt:w"]
    assert not only_plain(difference)


def test_a_value_that_is_a_tensor_on_one_side_is_not_plain(tmp_path: Path) -> None:
    paths = save({"x": 1}, tmp_path / "a.pt"), save({"x": torch.tensor(1)}, tmp_path / "b.pt")
    assert not only_plain(diff(*paths))


# -- folders -------------------------------------------------------------------------------------


def test_a_path_below_the_checkpoint_is_the_same_anywhere(tmp_path: Path) -> None:
    for side, score in (("a", 1.5), ("b", 1.5), ("c", 2.5)):
        path = str(tmp_path / side / "step=4.ckpt")
        nest = {"best": path, "dir": str(tmp_path / side), "scores": {path: torch.tensor(score)}, "w": 1}
        save(nest, tmp_path / side / "last.ckpt")
        (tmp_path / side / "best.txt").write_text(f"the best is {path}")
    assert diff(tmp_path / "a", tmp_path / "b").equal
    found = names(diff(tmp_path / "a", tmp_path / "c"))
    assert found == ["last.ckpt:scores.${CHECKPOINT}/step=4.ckpt"]


def test_only_whole_folders_are_replaced() -> None:
    hide = Places([("/run/a", "${A}")]).hide
    assert hide("/run/a/x /run/a") == "${A}/x ${A}"
    assert hide("/run/ab /run/a.old /x/run/a") == "/run/ab /run/a.old /x/run/a"


def test_phases_of_a_cell_have_one_placeholder(tmp_path: Path) -> None:
    hide = of_results(tmp_path).hide
    for phase in ("continuous", "interrupted"):
        assert hide(f"{tmp_path}/checkpoints/{phase}/step_4") == "${CHECKPOINT_SAVE_PATH}/step_4"
        assert hide(f"{tmp_path}/{phase}/tensorboard") == "${OUTPUT_PATH}/tensorboard"
    places = of_results(tmp_path / "results", tmp_path / "cases" / "x")
    load = f"{tmp_path}/results/checkpoints/resumed-from/step_4"
    assert places.hide(load) == "${CHECKPOINT_LOAD_PATH}/step_4"
    assert places.hide_in_name(load) == "${CHECKPOINT_SAVE_PATH}/step_4"
    assert places.hide("../../results/checkpoints/resumed/a") == "${CHECKPOINT_SAVE_PATH}/a"
    assert of_checkpoints(Path("/")).hide("/etc") == "/etc"


# -- plain pickles -------------------------------------------------------------------------------


def test_a_plain_pickle_is_compared_by_value(tmp_path: Path) -> None:
    for side, when, seen in (("a", 1, {1, 2}), ("b", 2, {2, 1}), ("c", 1, {1, 3})):
        nest = {
            "when": dt.datetime(2026, 1, when, tzinfo=dt.timezone.utc),
            "seen": seen,
            "at": Path("/x/y"),
            "text": "x" * 300,
        }
        (tmp_path / f"{side}.pkl").write_bytes(pickle.dumps(nest))
    assert names(diff(tmp_path / "a.pkl", tmp_path / "b.pkl")) == ["when.datetime.0"]
    assert names(diff(tmp_path / "a.pkl", tmp_path / "c.pkl")) == ["seen"]
    entries = open_checkpoint(tmp_path / "a.pkl").entries
    assert entries["at"].data == b"/x/y"


def test_what_only_looks_like_a_pickle_is_compared_as_bytes(tmp_path: Path) -> None:
    for name, content in (("cut.pkl", b"\x80\x04K\x01"), ("more.bin", b"\x80\x04K\x01..")):
        (tmp_path / name).write_bytes(content)
        assert open_checkpoint(tmp_path / name).names() == ["bytes"]


# -- stamps and words ----------------------------------------------------------------------------


def test_files_with_a_stamp_in_their_names_are_compared_for_what_they_hold(tmp_path: Path) -> None:
    for side, stamp, position in (("a", "20260101", 7), ("b", "20270202", 7), ("c", "20280303", 8)):
        save({"w": torch.ones(2)}, tmp_path / side / "model.pt")
        (tmp_path / side / f"reader-{stamp}.json").write_text(json.dumps({"position": position}))
    found = diff(tmp_path / "a", tmp_path / "b")
    assert names(found) == ["reader-#.json:file name"]
    rules, rest = circumstances(found)
    assert not rest
    assert diff(tmp_path / "a", tmp_path / "b", rules=rules).equal
    assert names(diff(tmp_path / "a", tmp_path / "c", rules=rules)) == ["reader-#.json:position"]
    one, two, three = (fingerprint_of(tmp_path / side, rules) for side in "abc")
    assert one == two
    assert one.values != three.values


def test_only_the_words_of_a_text_that_two_runs_do_not_share_are_left_out(tmp_path: Path) -> None:
    for side, line in (
        ("a", "12:01 step 8 lines 24"),
        ("b", "12:02 step 8 lines 24"),
        ("c", "12:03 step 8 lines 9"),
    ):
        save({"w": 1}, tmp_path / side / "model.pt")
        (tmp_path / side / "train.log").write_text(line)
    rules, _ = circumstances(diff(tmp_path / "a", tmp_path / "b"))
    assert [rule.words for rule in rules] == [(1,)]
    assert Rule.observed(rules[0].as_dict()) == rules[0]
    assert diff(tmp_path / "a", tmp_path / "b", rules=rules).equal
    found = diff(tmp_path / "a", tmp_path / "c", rules=rules)
    assert [(e.name, e.b) for e in found.entries] == [("train.log:line 1", "12:# step 8 lines 9")]
    assert fingerprint_of(tmp_path / "a", rules) == fingerprint_of(tmp_path / "b", rules)


@pytest.mark.parametrize(
    ("saved", "loaded", "equal"),
    [
        (None, "", True), ("", "/step_4", True), ("{save}/step_4", "/step_4", True), (7, "", False),
        ("pretrained", "", False), ("{save}/step_4", "/step_2", False), ("best {save}/x", None, False),
    ],
)  # fmt: skip
def test_where_the_resumed_run_was_told_to_load_from_is_no_state(
    tmp_path: Path, saved: Any, loaded: str | None, equal: bool
) -> None:
    places = of_results(tmp_path)
    save_to = f"{tmp_path}/checkpoints/continuous"
    one = saved.format(save=save_to) if isinstance(saved, str) else saved
    two = f"{tmp_path}/checkpoints/resumed-from{loaded}" if loaded is not None else "worst"
    paths = [save({"w": 1, "load": value}, tmp_path / f"{i}.pt") for i, value in enumerate((one, two))]
    found = diff(*paths, places=places)
    assert found.equal == equal
    assert names(found) == ([] if equal else ["load"])


# -- what is left out is no more than what differs -------------------------------------------------


def _two(tmp_path: Path, file: str, one: str, two: str, lost: str) -> tuple[StateDiff, StateDiff]:
    """Observed of the first two; the third beside the first, with what was observed."""
    for side, text in (("a", one), ("b", two), ("c", lost)):
        save({"w": torch.ones(2)}, tmp_path / side / "model.pt")
        (tmp_path / side / file).write_text(text)
    seen = diff(tmp_path / "a", tmp_path / "b")
    rules, _ = circumstances(seen, lists=True)
    return diff(tmp_path / "a", tmp_path / "b", rules=rules), diff(
        tmp_path / "a", tmp_path / "c", rules=rules
    )


@pytest.mark.parametrize(
    ("file", "one", "two", "lost"),
    [
        ("s.csv", "5,20,17.5", "5,20,18.5", "5,0,19.5"),
        ("s.txt", "step=5,seen=20,pid=7", "step=5,seen=20,pid=8", "step=5,seen=0,pid=9"),
        ("s.jsonl", '{"seen": 20, "t": 1.5}', '{"seen": 20, "t": 2.5}', '{"seen": 0, "t": 3.5}'),
        ("s.json", '{"p": [20.0, 1.5, 4.0]}', '{"p": [20.0, 2.5, 4.0]}', '{"p": [0.0, 3.5, 4.0]}'),
        ("s.json", '{"#": 1, "seen": 20}', '{"#": 2, "seen": 20}', '{"#": 3, "seen": 0}'),
    ],
)
def test_what_stands_beside_a_circumstance_is_compared(
    tmp_path: Path, file: str, one: str, two: str, lost: str
) -> None:
    sound, faulty = _two(tmp_path, file, one, two, lost)
    assert sound.equal
    assert len(faulty.entries) == 1


def test_a_circumstance_of_one_ranks_file_is_none_of_anothers(tmp_path: Path) -> None:
    for side, pid, seen in (("a", 1, 20), ("b", 2, 20), ("c", 3, 0)):
        for rank, note in ((0, pid), (1, seen)):
            (tmp_path / side).mkdir(exist_ok=True)
            (tmp_path / side / f"rank_{rank}.json").write_text(json.dumps({"note": note}))
    rules, _ = circumstances(diff(tmp_path / "a", tmp_path / "b"), 5)
    assert [rule.file for rule in rules] == ["rank_0.json"]
    assert names(diff(tmp_path / "a", tmp_path / "c", rules=rules)) == ["rank_1.json:note"]


def test_what_is_no_file_is_said_and_not_waited_for(tmp_path: Path) -> None:
    save({"w": 1}, tmp_path / "model.pt")
    os.mkfifo(tmp_path / "pipe")
    found = diff(tmp_path, tmp_path)
    assert "is no regular file" in found.unread["pipe"]
    assert not found.equal


def test_infinities_that_are_others_have_no_distance(tmp_path: Path) -> None:
    values = [1.0, -math.inf], [2.0, -math.inf], [1.0, 99.0]
    paths = [save({"w": torch.tensor(value)}, tmp_path / f"{i}.pt") for i, value in enumerate(values)]
    near, far = (distances(diff(paths[0], path), Places()) for path in paths[1:])
    assert near == {"w": 1.0}
    assert math.isnan(far["w"])
