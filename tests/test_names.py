"""What names say of iterations, and how those of a whole folder are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.trainers.command.checkpoint_names import found
from harness.trainers.command.names import Kind, Saves, marked, no_checkpoint, read, temporary


@pytest.mark.parametrize(
    ("name", "kind", "numbers"),
    [
        ("ep0-ba20-rank0.pt", Kind.ITERATION, (20,)),
        (
            "gpt--loss=0.0123-epoch=0-step=7-consumed_samples=64.0-last.ckpt",
            Kind.ITERATION,
            (7,),
        ),
        ("epoch=1-step=20-val_loss=0.25-v1.ckpt", Kind.ITERATION, (20,)),
        ("iter-000020-ckpt.pth", Kind.ITERATION, (20,)),
        ("global_step20", Kind.ITERATION, (20,)),
        ("mp_rank_00_model_step_20.pt", Kind.ITERATION, (20,)),
        ("checkpoint_1_20-shard0.pt", Kind.CHECKPOINT, (1, 20)),
        ("ckpt-20.data-00000-of-00001", Kind.CHECKPOINT, (20,)),
        ("epoch_2.pth", Kind.EPOCH, (2,)),
        ("ckpt_ep2.pth", Kind.EPOCH, (2,)),
        ("weights.02-0.93.hdf5", Kind.EPOCH, (2,)),
        ("2epoch.pth", Kind.EPOCH, (2,)),
        ("rl_model_20_steps.zip", Kind.ITERATION, (20,)),
        ("ckpt_ep1_step_20.pt", Kind.ITERATION, (20,)),
        ("run_3_step_20.pt", Kind.ITERATION, (20,)),
        ("llama-7-0.5b.pt", Kind.BARE, (7,)),
        ("0000020.pt", Kind.BARE, (20,)),
        ("llama-7b-20.pt", Kind.BARE, (20,)),
    ],
)
def test_the_word_before_a_number_says_what_it_counts(
    name: str, kind: Kind, numbers: tuple[int, ...]
) -> None:
    said = read(name)
    assert said is not None
    assert (said.kind, said.numbers) == (kind, numbers)


@pytest.mark.parametrize(
    "name",
    [
        "last.pt",
        "rank_0.pt",
        "model-7b",
        "2024-01-05_12-30-20",
        "fp8_config.json",
        "1-of-20.bin",
        "sampler-v5",
    ],
)
def test_numbers_of_something_else_are_none(name: str) -> None:
    assert read(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "tmp-checkpoint-20", "20.orbax-checkpoint-tmp-1700000000", "checkpoint-20.tmp", "step_20.pt.part",
        "step_20_tmp", "step_20-unfinished", ".step_20", "_step_20", "staging_step_20", "step_20.incomplete",
    ],
)  # fmt: skip
def test_what_is_being_written_is_no_checkpoint(name: str) -> None:
    assert no_checkpoint(name)


@pytest.mark.parametrize("name", ["temp_scaler.pt", "partial_sums.json", "template_20", "attempt_2"])
def test_state_that_sounds_temporary_is_not_left_out(name: str) -> None:
    assert not temporary(name)


def test_a_marker_speaks_of_the_name_beside_it() -> None:
    assert (marked("step_20-unfinished"), marked("UNFINISHED"), marked("step_20.pt")) == ("step_20", "", None)


def made(root: Path, names: str) -> Path:
    for name in names.split():
        (root / name).mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("names", "k", "saves", "expected"),
    [
        ("step=3 step=7", 4, Saves(4, 8), "step=3"),  # done, counted from 0
        ("step=3 step=7", 8, Saves(4, 8), "step=7"),
        ("step=3", 4, Saves(4), "step=3"),  # the run goes on
        ("step=4 step=8", 4, Saves(4, 8), "step=4"),
        ("3 7", 4, Saves(4, 8), "3"),  # orbax
        ("model_0000019.pth model_0000039.pth model_final.pth", 20, Saves(20, 40), "model_0000019.pth"),
        ("model_0000019.pth", 20, Saves(20), "model_0000019.pth"),  # detectron2
        ("0 1 2 3 epoch_1", 2, Saves(1, 4), "2"),  # bare numbers may be those of ranks
        ("epoch_2 epoch_4", 2, Saves(2, 4), "epoch_2"),  # iterations are epochs
        ("epoch_1 epoch_2 epoch_3 epoch_4", 10, Saves(5, 20), "epoch_2"),  # one a save, from 1
        ("epoch_0 epoch_1 epoch_2 epoch_3", 10, Saves(5, 20), "epoch_1"),  # from 0
        ("epoch_1 epoch_2", 10, Saves(5), "epoch_2"),
        ("epoch_0 epoch_1", 10, Saves(5), "epoch_1"),
        ("epoch_0 epoch_1 epoch_2 epoch_3", 2, Saves(1, 4), "epoch_1"),  # torchtune
        ("epoch_0 epoch_1 epoch_2 epoch_3", 4, Saves(1, 4), "epoch_3"),
        ("epoch_1 epoch_2 epoch_3 epoch_4 epoch_5 epoch_6 epoch_7 epoch_8 epoch_9 epoch_10", 10, Saves(2, 20),
         "epoch_5"),
        ("epoch_2 epoch_4", 20, Saves(20, 40), "epoch_2"),  # of ten iterations each
        ("epoch_2", 20, Saves(20, 20), "epoch_2"),
        ("epoch_1 epoch_3", 20, Saves(20, 40), "epoch_1"),  # from 0
        ("weights.01-0.48.keras weights.02-0.46.keras", 20, Saves(20, 40), "weights.01-0.48.keras"),
        ("2epoch.pth 4epoch.pth", 20, Saves(20, 40), "2epoch.pth"),  # ESPnet
        ("checkpoints/checkpoint_0 checkpoints/checkpoint_1", 5, Saves(5, 10), "checkpoints/checkpoint_0"),
        ("checkpoint_1_4 checkpoint_1_8 checkpoint1", 4, Saves(4, 8), "checkpoint_1_4"),
        ("checkpoint_4_1 checkpoint_8_1", 4, Saves(4, 8), "checkpoint_4_1"),
        ("step_5 step_10 step_15 step_20", 10, Saves(10, 20), "step_10"),  # saves more often than it says
        ("epoch_10/step_200 epoch_20/step_400", 200, Saves(200, 400), "epoch_10/step_200"),
    ],
)  # fmt: skip
def test_how_a_folder_counts_is_told_by_all_of_its_names(
    names: str, k: int, saves: Saves, expected: str, tmp_path: Path
) -> None:
    root = made(tmp_path, names)
    assert found(root, k, saves)[k] == [root / expected]


@pytest.mark.parametrize(
    ("names", "k", "saves"),
    [
        ("checkpoint_1 checkpoint_2", 20, Saves(10)),  # one that saves every step, and goes on
        ("step_0 step_1 step_2", 2, Saves(1)),  # is step_0 the first, or what stood before it? it goes on
        ("step_3", 4, Saves(4, 8)),  # ended too early
        ("rng_0 rng_1", 4, Saves(4, 8)),  # of ranks
        ("epoch_2", 4, Saves(2)),  # the second, or the first of an interval of two?
        ("step_1 step_2", 20, Saves(10, 20)),
        ("epoch_2", 20, Saves(20)),  # it goes on: of ten iterations each, or of one?
        ("model_18.pth model_19.pth", 20, Saves(20, 20)),
        ("model_3.pth", 4, Saves(4, 4)),  # of so few, a layer, a fold?
        ("epoch_3 epoch_4", 20, Saves(20, 40)),  # 30 is no multiple of 20
    ],
)
def test_what_may_be_another_is_not_taken_for_it(names: str, k: int, saves: Saves, tmp_path: Path) -> None:
    assert k not in found(made(tmp_path, names), k, saves)


def test_names_of_the_folder_before_tell_what_those_of_a_resumed_run_mean(tmp_path: Path) -> None:
    before, after = made(tmp_path / "before", "epoch_0 epoch_1"), made(tmp_path / "after", "epoch_2 epoch_3")
    assert found(after, 4, Saves(1, 4), also=before)[4] == [after / "epoch_3"]


def test_a_checkpoint_beside_its_marker_is_not_there_yet(tmp_path: Path) -> None:
    root = made(tmp_path, "step_10 step_20 step_30")
    (root / "step_10-unfinished").touch()
    (root / "step_20" / "UNFINISHED").touch()
    assert list(found(root, 30)) == [30]
