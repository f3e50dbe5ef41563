"""Which entry of the saved state a diagnosis names, and that what differs is listed in the order of cause."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.checkpoints import Gap, StateDiff, TensorDiff
from harness.diagnosis import COMPONENTS, Diagnosis, in_order_of_cause
from harness.diagnosis.result import CAUSES
from harness.protocol.findings import Findings, SavedState
from harness.protocol.results import ResultsFolder
from harness.protocol.run import _write_state_diff
from harness.verdict import Verdict
from harness.verdict.reading import read_verdict
from tests.made_curves import K, differs, lost, off, state

_MOMENT = "optimizer.exp_avg.decoder.layers.3.mlp.linear_fc1.weight"
#: As a diff has them, by name: what training moved since stands before what was lost.
EVERYTHING = (
    differs("buffers.running_mean", "buffers"),
    differs("model.decoder.layers.0.mlp.linear_fc1.weight", "weights"),
    differs("model.embedding.word_embeddings.weight", "embedding"),
    differs("optimizer.exp_avg.decoder.layers.0.mlp.linear_fc1.weight", "optimizer"),
    differs("optimizer.master.decoder.layers.0.mlp.linear_fc1.weight", "optimizer"),
    differs("rng.numpy.0_0_0", "rng", max_abs=0.1),
    differs("rng.torch.0_0_0", "rng"),
    differs("scheduler.num_steps", "lr-schedule"),
)


def names(*entries: TensorDiff) -> list[str]:
    return [entry.name for entry in entries]


@pytest.mark.parametrize(
    ("curve", "entries", "entry"),
    [
        ("lm loss", [differs("rng.numpy.0_0_0", "rng", max_abs=0.1), differs("rng.torch.0_0_0", "rng")],
         "rng.torch.0_0_0"),
        ("lm loss", [differs("rng.numpy.0_0_0", "rng")], "rng.numpy.0_0_0"),
        ("params-norm", [differs(_MOMENT, "optimizer")], _MOMENT),
        ("params-norm", [differs(_MOMENT, "optimizer"),
                         differs("optimizer.step", "optimizer", elements=1, differing=1, a=50, b=0)],
         "optimizer.step"),
    ],
)  # fmt: skip
def test_the_stream_or_the_moment_that_was_lost_is_named(
    curve: str, entries: list[TensorDiff], entry: str
) -> None:
    found = lost(off(curve, K + 1), probe=state(*entries))
    assert found.component == entries[0].component
    assert found.entry == entry
    assert any(entry in said for said in found.evidence)


def test_what_only_the_end_shows_is_named_where_training_does_not_move_it() -> None:
    end = state(*EVERYTHING)
    assert lost(off("learning-rate", K + 1), end=end).entry == "scheduler.num_steps"
    moved = state(differs(_MOMENT, "optimizer"), differs("model.x.weight", "weights"))
    assert lost(off("params-norm", K + 1), end=moved).entry == "", (
        "training moves moments: they prove nothing"
    )


def test_what_was_never_saved_is_named_by_what_its_entries_would_be_called() -> None:
    gap = Gap("optimizer", "the checkpoint holds no optimizer step counts", "optimizer.step.*")
    assert lost(off("params-norm", K + 1), probe=state(gaps=[gap])).entry == "optimizer.step.*"


def test_of_a_checkpoint_that_was_loaded_in_part_the_first_cause_is_named() -> None:
    found = lost(off("lm loss", K + 1), probe=state(*EVERYTHING))
    assert (found.component, found.entry) == ("checkpoint", "scheduler.num_steps")


def test_what_differs_begins_with_what_was_lost_and_goes_on_in_the_order_of_cause() -> None:
    found = in_order_of_cause(EVERYTHING, Diagnosis("rng", (), entry="rng.torch.0_0_0"))
    assert names(*found) == [
        "rng.torch.0_0_0",
        "rng.numpy.0_0_0",
        "scheduler.num_steps",
        "buffers.running_mean",
        "model.embedding.word_embeddings.weight",
        "model.decoder.layers.0.mlp.linear_fc1.weight",
        "optimizer.exp_avg.decoder.layers.0.mlp.linear_fc1.weight",
        "optimizer.master.decoder.layers.0.mlp.linear_fc1.weight",
    ]
    assert names(*in_order_of_cause(EVERYTHING, Diagnosis("rng", ())))[0] == "rng.torch.0_0_0"


def test_without_a_diagnosis_the_order_of_cause_decides() -> None:
    found = [entry.component for entry in in_order_of_cause(EVERYTHING, None)]
    assert found == sorted(found, key=CAUSES.index)
    assert set(in_order_of_cause(EVERYTHING, None)) == set(EVERYTHING), "every entry is still there"


def test_masters_are_what_was_lost_where_weights_were() -> None:
    found = in_order_of_cause(EVERYTHING, Diagnosis("weights", ()))
    assert [entry.component for entry in found][:3] != ["weights", "rng", "rng"]
    assert {entry.name.partition(".")[0] for entry in found[:3]} == {"model", "optimizer"}


def test_a_component_that_nobody_knows_comes_last() -> None:
    found = in_order_of_cause((differs("a", "of-a-newer-harness"), differs("z", "optimizer")), None)
    assert names(*found) == ["z", "a"]


def test_every_cause_is_a_component() -> None:
    assert set(CAUSES) <= COMPONENTS.keys()


# -- what is written -------------------------------------------------------------------------------


def written(folder: Path, difference: StateDiff, diagnosis: Diagnosis | None) -> dict[str, object]:
    findings = Findings()
    findings.add(SavedState(checks=(), difference=difference))
    _write_state_diff(ResultsFolder(folder), findings, diagnosis)
    found: dict[str, object] = json.loads((folder / "state_diff.json").read_text())
    return found


def test_the_file_begins_with_the_cause_and_has_every_field_that_it_had(tmp_path: Path) -> None:
    difference = state(*EVERYTHING)
    found = written(tmp_path, difference, Diagnosis("rng", ("torch's stream",), entry="rng.torch.0_0_0"))
    assert next(iter(found)) == "cause"
    assert found["cause"] == {
        "component": "rng", "entry": "rng.torch.0_0_0", "evidence": ["torch's stream"],
    }  # fmt: skip
    assert set(found) == {"cause", *difference.as_dict()}
    entries = found["entries"]
    assert isinstance(entries, list)
    assert entries[0]["name"] == "rng.torch.0_0_0"
    assert sorted(entry["name"] for entry in entries) == names(*EVERYTHING)


def test_equal_states_have_no_cause(tmp_path: Path) -> None:
    assert written(tmp_path, state(), Diagnosis("performance", ("slower",)))["cause"] is None
    assert written(tmp_path, state(*EVERYTHING), None)["cause"] is None
    never = written(tmp_path, state(), Diagnosis("optimizer", (), entry="optimizer.step.*"))["cause"]
    assert never == {"component": "optimizer", "entry": "optimizer.step.*", "evidence": []}


def test_the_entry_is_read_back_and_an_older_verdict_has_none(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    diagnosis = Diagnosis("rng", ("said",), entry="rng.torch.0_0_0")
    Verdict("cpu/dev/x", "failed", (), diagnosis, {}, {}, "again").write(path)
    assert read_verdict(path).diagnosis == diagnosis
    raw = json.loads(path.read_text())
    del raw["diagnosis"]["entry"]
    path.write_text(json.dumps(raw))
    again = read_verdict(path).diagnosis
    assert again is not None
    assert again.entry == ""
