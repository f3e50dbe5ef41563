"""Layouts by their names, and a case in another one than its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cases import Case, load_case
from harness.errors import CaseError, UsageError
from harness.protocol.layouts import BY_DEFAULT, OWN, Layout, distinct, lay, sizes_of

CASES = Path(__file__).parents[1] / "test_cases"
MOE = CASES / "moe" / "gpt3_moe_mcore_te_tp4_ep2_etp2_pp2_resume_torch_dist_dist_optimizer"
DECOUPLED = CASES / "gpt" / "gpt3_mcore_te_tp1_pp4_vp1_resume_torch_decoupled_lr"


def laid(folder: Path, word: str) -> tuple[str, int, Case]:
    found = lay(load_case(folder), "cpu", Layout.parse(word))
    return found.name, found.world_size, found.case


@pytest.mark.parametrize(
    "word", ["", "tp", "2", "tp0", "tp2tp1", "tp-1", "tp2 pp1", "zp2", "tp999999", "tp2x"]
)
def test_what_is_no_layout_is_refused_with_what_one_is(word: str) -> None:
    with pytest.raises(UsageError, match="expected own, or sizes above 0, each once, of tp, pp"):
        Layout.parse(word)


def test_a_layout_keeps_the_replicas_and_all_that_it_does_not_name() -> None:
    name, ranks, case = laid(MOE, "tp2")
    assert (name, ranks) == ("tp2pp2etp2", 4)
    before, after = (one.arguments("cpu") for one in (load_case(MOE), case))
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    assert changed == {"--tensor-model-parallel-size", "--expert-model-parallel-size"}


def test_sizes_of_experts_follow_as_far_as_they_fit_and_stay_where_they_are_named() -> None:
    assert laid(MOE, "own")[:2] == ("tp4pp2ep2etp2", 8)
    assert laid(MOE, "tp1")[:2] == ("tp1pp2", 2)
    assert laid(MOE, "tp2ep2etp1")[:2] == ("tp2pp2ep2", 4)
    with pytest.raises(CaseError, match=r"--layout tp1ep8: .*world size 2 does not factor"):
        laid(MOE, "tp1ep8")


def test_an_expert_size_that_is_tp_by_default_is_written_down_where_tp_changes(tmp_path: Path) -> None:
    folder = tmp_path / "moe" / "one"
    folder.mkdir(parents=True)
    text = (MOE / "model_config.yaml").read_text().replace("  --expert-tensor-parallel-size: 2\n", "")
    (folder / "model_config.yaml").write_text(text.replace("--expert-model-parallel-size: 2", "--seed: 2"))
    assert sizes_of(load_case(folder), "cpu")["etp"] == 4
    name, _, case = laid(folder, "tp8")
    assert name == "tp8pp2etp4"
    assert case.arguments("cpu")["--expert-tensor-parallel-size"] == "4"


def test_virtual_stages_are_left_out_where_there_is_one_stage() -> None:
    assert laid(DECOUPLED, OWN)[:2] == ("tp1pp4vp1", 4)
    name, ranks, case = laid(DECOUPLED, "pp1")
    assert (name, ranks) == ("tp1pp1", 1)
    assert "--num-layers-per-virtual-pipeline-stage" not in case.arguments("cpu")
    assert laid(DECOUPLED, "vp0")[0] == "tp1pp4"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("tp3", "--num-attention-heads 8 is not a multiple of TP 3"),
        ("pp3", "--num-layers 8 is not a multiple of PP 3"),
        ("dp16", "batch size 8 is not a multiple of micro-batch 1 × DP 16"),
    ],
)
def test_a_size_that_does_not_factor_is_one_error_with_the_layout_and_the_case(word: str, said: str) -> None:
    with pytest.raises(CaseError) as error:
        laid(DECOUPLED, word)
    assert error.value.message == f"--layout {word}: {DECOUPLED.name}: {said}"


def test_one_layout_by_two_words_is_crossed_once() -> None:
    case = load_case(MOE)
    found = distinct(lay(case, "cpu", Layout.parse(word)) for word in BY_DEFAULT)
    assert [one.name for one in found] == ["tp4pp2ep2etp2", "tp2pp2etp2", "tp1pp2", "tp4pp1ep2etp2"]


def test_a_command_has_no_layouts(tmp_path: Path) -> None:
    from tests.plain_case import write_case

    write_case(tmp_path / "own" / "plain")
    with pytest.raises(UsageError, match="trained by a command, whose sizes nobody else knows"):
        laid(tmp_path / "own" / "plain", "tp2")
    assert laid(tmp_path / "own" / "plain", OWN)[1] == 1
