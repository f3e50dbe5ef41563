"""Two things of one name in a checkpoint: both are compared, neither hides the other."""

import json
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.checkpoints import diff, members


def sides(tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    return a, b


@pytest.mark.parametrize("first", ["1", "2"])
def test_both_members_of_one_name_are_compared(tmp_path: Path, first: str) -> None:
    a, b = sides(tmp_path)
    for folder, step in ((a, "1"), (b, first)):
        with warnings.catch_warnings(), zipfile.ZipFile(folder / "state.zip", "w") as archive:
            warnings.simplefilter("ignore")
            archive.writestr("state.json", f'{{"step": {step}}}')
            archive.writestr("state.json", '{"step": 5}')
    found = diff(a, b)
    assert found.coverage.entries.compared == 2
    assert found.equal == (first == "1")


@pytest.mark.parametrize("value", [1.0, 2.0])
@pytest.mark.parametrize("other", [False, True])
def test_shards_of_two_precisions_are_two_tables(tmp_path: Path, value: float, other: bool) -> None:
    a, b = sides(tmp_path)
    for folder, one in ((a, 1.0), (b, value)):
        for variant in ("", ".fp16"):
            file = f"model{variant}-00001-of-00001.safetensors"
            changed = one if bool(variant) == other else 7.0
            save_file({"w": torch.tensor([changed])}, folder / file)
            index = {"metadata": {}, "weight_map": {"w": file}}
            (folder / f"model.safetensors.index{variant}.json").write_text(json.dumps(index))
    found = diff(a, b)
    assert found.coverage.entries.compared == 2
    assert found.equal == (value == 1.0)


@pytest.mark.parametrize("value", [3, 4])
def test_what_an_index_holds_beside_its_map_is_compared(tmp_path: Path, value: int) -> None:
    a, b = sides(tmp_path)
    for folder, step in ((a, 3), (b, value)):
        file = "model-00001-of-00001.safetensors"
        save_file({"w": torch.tensor([1.0])}, folder / file)
        index = {"metadata": {}, "weight_map": {"w": file}, "global_step": step}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert diff(a, b).equal == (value == 3)


@pytest.mark.parametrize("value", [3.0, 4.0])
@pytest.mark.parametrize("files", [1, 2])
def test_a_tensor_is_left_out_for_no_name(tmp_path: Path, value: float, files: int) -> None:
    a, b = sides(tmp_path)
    for folder, number in ((a, 3.0), (b, value)):
        for i in range(files):
            name = f"model-0000{i + 1}-of-0000{files}.safetensors" if files > 1 else "model.safetensors"
            held = {f"w{i}": torch.ones(1), f"__metadata__.w{i}": torch.tensor([number])}
            save_file(held, folder / name)
    found = diff(a, b)
    assert (found.equal, found.coverage.entries.excluded) == (value == 3.0, 0)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize(
    "member", ["state/step.json", "other/step.json", "state/code/step.py", "state/data/0"]
)
def test_what_lies_beside_a_nest_in_an_archive_is_compared(tmp_path: Path, member: str, step: int) -> None:
    a, b = sides(tmp_path)
    for folder, number in ((a, 1), (b, step)):
        torch.save({"w": torch.ones(2)}, folder / "state.pt")
        with warnings.catch_warnings(), zipfile.ZipFile(folder / "state.pt", "a") as archive:
            warnings.simplefilter("ignore")
            archive.writestr(member, f'{{"{number}": "a step"}}')
    found = diff(a, b)
    assert found.coverage.entries.compared >= 2
    assert found.equal == (step == 1)


def test_an_archive_of_torch_alone_holds_nothing_beside(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "state.pt")
    torch.save({"w": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert not members.beside(tmp_path / "state.pt")
    assert not members.beside(tmp_path / "old.pt")
