"""The checkpoint of an iteration is found in anybody's folder, by the names of what is in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.checkpoints import open_checkpoint
from harness.errors import CheckpointError
from harness.trainers.command import checkpoint_names
from harness.trainers.command.completeness import cut_off
from harness.trainers.command.names import Saves
from harness.trainers.command.putting_back import put_back


def folder(tmp_path: Path, *names: str) -> Path:
    root = tmp_path / "save"
    root.mkdir()
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"name": "{name}"}}')
    return root


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["iter_0000010/a.json", "iter_0000020/a.json"], "iter_0000010"),
        (["checkpoint-10/a.json", "checkpoint-20/a.json"], "checkpoint-10"),
        (["global_step10/rank_0.json", "global_step20/rank_0.json", "latest"], "global_step10"),
        (["epoch=0-step=10.ckpt", "epoch=1-step=20.ckpt", "last.ckpt"], "epoch=0-step=10.ckpt"),
        (["run/version_0/step=10.ckpt", "run/version_0/step=20.ckpt"], "run/version_0/step=10.ckpt"),
        (["model-7b-iter10.pt", "model-7b-iter20.pt"], "model-7b-iter10.pt"),
        (["ckpt_10.pt", "ckpt_20.pt", "fp8_config.json"], "ckpt_10.pt"),
        (["10/a.json", "20/a.json"], "10"),
        (["model_10.pt", "model_20.pt"], "model_10.pt"),
        (["iter_10/rank-10.pt", "iter_20/rank-10.pt"], "iter_10"),
    ],
)
def test_one_file_or_folder_is_the_checkpoint(names: list[str], expected: str, tmp_path: Path) -> None:
    root = folder(tmp_path, *names)
    assert checkpoint_names.checkpoint(root, 10, tmp_path / "gathered") == root / expected


def test_files_that_share_a_number_are_gathered(tmp_path: Path) -> None:
    root = folder(tmp_path, "model_10.json", "optim_10.json", "model_20.json", "optim_20.json")
    found = checkpoint_names.checkpoint(root, 10, tmp_path / "gathered")
    assert sorted(path.name for path in found.iterdir()) == ["model_10.json", "optim_10.json"]
    assert open_checkpoint(found).names() == ["model_10.json:name", "optim_10.json:name"]


def test_folders_that_share_an_iteration_are_gathered_with_what_is_in_them(tmp_path: Path) -> None:
    root = folder(tmp_path, "model/step_10/a.json", "optim/step_10/a.json", "model/step_20/a.json")
    found = checkpoint_names.checkpoint(root, 10, tmp_path / "gathered")
    assert open_checkpoint(found).names() == ["model/step_10/a.json:name", "optim/step_10/a.json:name"]


def test_what_has_no_iteration_in_its_name_belongs_to_the_last(tmp_path: Path) -> None:
    root = folder(tmp_path, "step_10/a.json", "step_20/a.json", "sampler.json", "more/deep/x.json", "a.tmp")
    (root / "latest").symlink_to("step_20")
    (root / "more" / "deep" / "step_20").mkdir()
    (root / "more" / "deep" / "step_20" / "y.json").write_text("{}")
    assert checkpoint_names.checkpoint(root, 10, tmp_path / "gathered") == root / "step_10"
    found = open_checkpoint(checkpoint_names.checkpoint(root, 20, tmp_path / "gathered"))
    assert found.files == (
        "beside/latest/a.json", "beside/more/deep/x.json", "beside/sampler.json",
        "more/deep/step_20/y.json", "step_20/a.json",
    )  # fmt: skip
    alone = checkpoint_names.checkpoint(root, 20, tmp_path / "gathered", alone=True)
    assert open_checkpoint(alone).files == ("more/deep/step_20/y.json", "step_20/a.json")


def test_what_only_looks_like_another_iterations_belongs_to_the_last(tmp_path: Path) -> None:
    root = folder(
        tmp_path,
        "step_5.json",
        "step_10.json",
        "sampler-v5.json",
        "_state.json",
        ".more.json",
        "data_5.json",
        "data_10.json",
    )
    found = open_checkpoint(checkpoint_names.checkpoint(root, 10, tmp_path / "gathered"))
    beside = ["beside/.more.json", "beside/_state.json", "beside/data_10.json", "beside/sampler-v5.json"]
    assert list(found.files) == [*beside, "step_10.json"]


def test_what_lies_in_the_one_folder_of_an_iteration_is_called_as_by_itself(tmp_path: Path) -> None:
    root = folder(tmp_path, "step_10/a.json", "step_20/a.json", "sampler.json")
    found = open_checkpoint(checkpoint_names.checkpoint(root, 20, tmp_path / "gathered"))
    assert found.files == ("a.json", "beside/sampler.json")


def test_a_folder_without_iterations_in_its_names_is_one_checkpoint(tmp_path: Path) -> None:
    root = folder(tmp_path, "last.pt", "epoch_3.pt")
    assert checkpoint_names.checkpoint(root, 10, tmp_path / "gathered") == root


def test_a_missing_checkpoint_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    root = folder(tmp_path, "step_5.pt", "step_20.pt")
    with pytest.raises(CheckpointError, match=r"no checkpoint of iteration 10; found: 5, 20"):
        checkpoint_names.checkpoint(root, 10, tmp_path / "gathered")
    with pytest.raises(CheckpointError, match="holds no file"):
        checkpoint_names.checkpoint(tmp_path / "nothing", 10, tmp_path / "gathered")


@pytest.mark.parametrize("counts", [(0, 1, 2, 3), (1, 3), (4, 9), (0, 5)])
def test_names_that_count_from_0_are_told_so(tmp_path: Path, counts: tuple[int, ...]) -> None:
    root = folder(tmp_path, *(f"checkpoint_{count}.pt" for count in counts))
    k = counts[-1] + 1 if counts != (0, 5) else 10
    with pytest.raises(CheckpointError) as error:
        checkpoint_names.checkpoint(root, k, tmp_path / "gathered")
    assert ("counted from 0" in str(error.value)) is (counts != (0, 5))


@pytest.mark.parametrize("name", ["step_10.pt.tmp", ".step_10.pt", "step_10.incomplete", "_step_10"])
def test_what_is_still_being_written_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    assert not checkpoint_names.found(folder(tmp_path, name), 10).get(10)


@pytest.mark.parametrize("index", ['{"weight_map": {"a": []}}', '{"weight_map": {"a": {}, "b": null}}'])
def test_an_index_that_names_no_files_is_cut_off_and_no_traceback(index: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert "which is not there" in cut_off([tmp_path])


def test_the_state_of_a_checkpoint_changes_while_it_is_written(tmp_path: Path) -> None:
    root = folder(tmp_path, "step_10/a.json")
    parts = checkpoint_names.found(root, 10)[10]
    before = checkpoint_names.state_of(parts)
    (root / "step_10" / "b.json").write_text("{}")
    after = checkpoint_names.state_of(parts)
    assert (len(before), len(after)) == (2, 3)


def test_putting_back_leaves_later_checkpoints_out_and_turns_links_to_them(tmp_path: Path) -> None:
    root = folder(tmp_path, "step_10/a.json", "step_20/a.json", "step_5/a.json", "config.json")
    (root / "latest").symlink_to("step_20")
    put_back(root, tmp_path / "target", 10, Saves(10))
    there = sorted(path.name for path in (tmp_path / "target").iterdir())
    assert there == ["config.json", "latest", "step_10", "step_5"]
    assert (tmp_path / "target" / "latest").resolve().name == "step_10"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("latest_checkpointed_iteration.txt", "20\n", "10\n"),
        ("last_step", "20", "10"),
        ("current_batch_size.txt", "20", "20"),
        ("last_seed", "20", "20"),
        ("latest", "²", "²"),
        ("last", "9" * 5000, "9" * 5000),
        ("latest", "step_20 é", "step_10 é"),
    ],
)
def test_a_number_is_turned_only_where_it_is_that_of_a_checkpoint(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    root = folder(tmp_path, "step_10.pt", "step_20.pt")
    (root / name).write_bytes(text.encode())
    put_back(root, tmp_path / "target", 10, Saves(10, 20))
    assert (tmp_path / "target" / name).read_bytes().decode() == expected


def test_what_a_resumed_script_overwrites_does_not_change_the_source(tmp_path: Path) -> None:
    root = folder(tmp_path, "last.pt")
    before = (root / "last.pt").read_text()
    put_back(root, tmp_path / "target", 10, Saves(10))
    with (tmp_path / "target" / "last.pt").open("r+") as file:
        file.write("xxxx")
    assert (root / "last.pt").read_text() == before


def test_orbax_saves_its_first_step_too_and_numbers_its_processes(tmp_path: Path) -> None:
    """``ba8850`` in a hash is no batch, ``process_0`` no iteration, and step 1 nothing beside step 40."""
    inside = (
        "ocdbt.process_0/d/4df63c4e1ba8850e3054e6a88d9a09e2",
        "array_metadatas/process_0",
        "manifest.ocdbt",
    )
    root = folder(tmp_path, *(f"{step}/default/{name}" for step in (1, 20, 40) for name in inside))
    for step in (20, 40):
        assert checkpoint_names.checkpoint(root, step, tmp_path / "gathered", Saves(20)) == root / str(step)


def test_numbers_inside_a_checkpoint_make_nothing_of_it_stand_beside_another(tmp_path: Path) -> None:
    inside = ("x_20/b.json", "c.json")
    root = folder(tmp_path, *(f"{step}/{name}" for step in (1, 20, 40) for name in inside))
    assert checkpoint_names.checkpoint(root, 40, tmp_path / "gathered", Saves(20)) == root / "40"


@pytest.mark.parametrize("numbered", [["epoch=1-step=20.ckpt", "epoch=3-step=40.ckpt"], []])
def test_of_several_that_are_called_last_the_one_that_was_written_last_is(
    tmp_path: Path, numbered: list[str]
) -> None:
    root = folder(
        tmp_path, *numbered, "last.ckpt", "last-v1.ckpt", "last-v2.ckpt", "best-v1.ckpt", "best.ckpt"
    )
    for second, name in enumerate(("last.ckpt", "last-v1.ckpt", "last-v2.ckpt")):
        os.utime(root / name, (second, second))
    found = checkpoint_names.checkpoint(root, 40, tmp_path / "gathered")
    beside = found / "beside" if numbered else found
    assert sorted(path.name for path in beside.iterdir()) == ["best-v1.ckpt", "best.ckpt", "last.ckpt"]
    assert "last-v2.ckpt" in (beside / "last.ckpt").read_text()
    # Where it is not the newer one, both are somebody's own.
    os.utime(root / "last.ckpt", (9, 9))
    found = checkpoint_names.checkpoint(root, 40, tmp_path / "gathered")
    left = {path.name for path in (found / "beside" if numbered else found).iterdir()}
    assert {"last.ckpt", "last-v1.ckpt", "last-v2.ckpt"} <= left
