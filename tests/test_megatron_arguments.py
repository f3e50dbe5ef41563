"""What of a case file Megatron-LM's scripts take in a way of their own: repeated keys, Hydra's, variables."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.cases import Case, load_case
from harness.commands.cli import main
from harness.errors import CaseError
from harness.trainers.base import Phase, PhaseName
from harness.trainers.megatron import command_line
from harness.trainers.megatron.adapter import MegatronTrainer, reason_not_run

OWN = """\
ENV_VARS:
  WORDS: 32
  MIXTURE: 0.5 /a 0.5 /b
  DEEPER: ${WORDS}/deep
MODEL_ARGS:
  --train-iters: 8
  --save-interval: 4
  --x: VALUE
"""
LIGHT = """\
ENV_VARS:
  ENABLE_LIGHTWEIGHT_MODE: true
MODEL_ARGS:
  --train-iters: 50
  --exit-interval: 25
  --save-interval: 25
  --lr: .1
TEST_TYPE: KIND
"""
BARE = "MODEL_ARGS: {--train-iters: 8, --save-interval: 4}\n"


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has the script, and is named as the checkout; nobody else's environment."""
    for name in ("DATA_PATH", "GPUS_PER_NODE", "WORDS", "MIXTURE", "ENABLE_LIGHTWEIGHT_MODE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "megatron-lm"
    folder.mkdir()
    (folder / "pretrain_gpt.py").touch()
    monkeypatch.setenv("MEGATRON_LM_PATH", str(folder))
    return folder


def case(tmp_path: Path, text: str, family: str = "gpt") -> Case:
    folder = tmp_path / "cases" / family / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_config.yaml").write_text(text)
    return load_case(folder)


def phase(name: PhaseName = "continuous", *, n: int = 8, k: int = 4, stop: int | None = None) -> Phase:
    load = Path("/results/from") if name == "resumed" else None
    return Phase(name, Path("/results", name), Path("/results/save"), load, k if load else 0, stop or n, n, k)


def words(a_case: Case, a_phase: Phase | None = None) -> list[str]:
    argv = MegatronTrainer(a_case, "h100").launch(a_phase or phase()).argv
    return list(argv[argv.index("pretrain_gpt.py") + 1 :])


# -- variables of the case's own -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${WORDS}", ["32"]),
        ("$WORDS", ["32"]),
        ("a/${WORDS}/b", ["a/32/b"]),
        ("${DEEPER}", ["32/deep"]),
        # As the scripts' eval has it: split where it stands outside of quotes.
        ("${MIXTURE}", ["0.5", "/a", "0.5", "/b"]),
        ("'[${WORDS} 1]'", ["32", "1"]),
        ("[a b]", ["a", "b"]),
        (r"Et*3\\|\\(tt\\|\\)*6L", ["Et*3|(tt|)*6L"]),
        ("[a, $WORDS]", ["a", "32"]),
        ("'[${MIXTURE}]'", ["0.5", "/a", "0.5", "/b"]),
        ("'and ${MIXTURE}'", ["and 0.5 /a 0.5 /b"]),
        ("(${MIXTURE})", ["(0.5 /a 0.5 /b)"]),
    ],
)
def test_a_variable_of_the_cases_own_is_expanded_in_its_arguments(
    value: str, expected: list[str], tmp_path: Path
) -> None:
    a_case = case(tmp_path, OWN.replace("VALUE", value))
    trainer = MegatronTrainer(a_case, "h100")
    trainer.check()
    given = words(a_case)
    assert given[given.index("--x") + 1 : given.index("--exit-interval")] == expected
    env = trainer.launch(phase()).env
    assert (env["WORDS"], env["DEEPER"]) == ("32", "32/deep")


def test_the_environment_is_in_the_file_before_the_cases_own_variables_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORDS", "64")
    monkeypatch.setenv("MIXTURE", "c d")
    a_case = case(tmp_path, OWN.replace("VALUE", "${WORDS}\n  --y: ${MIXTURE}"))
    given = words(a_case)
    assert given[4:8] == ["--x", "64", "--y", "c d"]
    env = MegatronTrainer(a_case, "h100").launch(phase()).env
    assert (env["WORDS"], env["DEEPER"]) == ("32", "64/deep")


@pytest.mark.parametrize("where", ["ENV_VARS: {LATER: '${NOWHERE}', NOWHERE: 1}\n", ""])
def test_a_name_without_a_value_is_refused(where: str, tmp_path: Path) -> None:
    text = BARE if where else "MODEL_ARGS: {--train-iters: 8, --save-interval: 4, --x: '${NOWHERE}'}\n"
    with pytest.raises(CaseError, match="NOWHERE has no value here"):
        MegatronTrainer(case(tmp_path, where + text), "h100").check()


def test_iterations_may_be_a_variable_of_the_cases_own(tmp_path: Path) -> None:
    a_case = case(tmp_path, "ENV_VARS: {N: 12}\nMODEL_ARGS: {--train-iters: '${N}', --save-interval: $N}\n")
    assert (a_case.train_iters("h100"), a_case.save_interval("h100")) == (12, 12)


@pytest.mark.torch
def test_the_native_trainer_takes_a_variable_of_the_cases_own_too(tmp_path: Path) -> None:
    from harness.trainers import trainer_of

    text = """\
ENV_VARS: {WIDTH: 64, WIDER: "${WIDTH}${WIDTH}"}
MODEL_ARGS:
  --num-layers: 2
  --hidden-size: ${WIDTH}
  --num-attention-heads: 2
  --seq-length: 32
  --max-position-embeddings: 32
  --vocab-size: 128
  --micro-batch-size: 1
  --global-batch-size: 2
  --train-iters: 4
  --save-interval: 2
  --lr: .1
  --save: ${CHECKPOINT_SAVE_PATH}
  --load: ${CHECKPOINT_LOAD_PATH}
  --tensorboard-dir: ${TENSORBOARD_PATH}
"""
    launch = trainer_of(case(tmp_path, text), "cpu").launch(phase(n=4, k=2))
    assert launch.argv[launch.argv.index("--hidden-size") + 1] == "64"
    assert launch.env["WIDER"] == "6464"


def test_a_command_takes_a_variable_of_the_cases_own_too(tmp_path: Path) -> None:
    from harness.trainers import trainer_of

    text = (
        "ENV_VARS: {WIDTH: 64, WIDER: '${WIDTH}x'}\nMODEL_ARGS: {--train-iters: 8}\n"
        "HARNESS: {trainer: {default: command}, command: {train: [echo, '${WIDER}', '${EXIT_ITERS}']}}\n"
    )
    launch = trainer_of(case(tmp_path, text), "cpu").launch(phase())
    assert launch.argv[1:] == ("64x", "8")
    assert launch.env["WIDER"] == "64x"


# -- keys ----------------------------------------------------------------------------------------


def test_of_a_repeated_key_the_last_value_counts_and_a_warning_says_so(tmp_path: Path) -> None:
    text = "ENV_VARS:\n  A: 1\n  A: 2\nMODEL_ARGS:\n  --x: 1\n  --train-iters: 8\n  --x: 2\n  --x: 3\n"
    a_case = case(tmp_path, text)
    assert words(a_case) == ["--x", "3", "--train-iters", "8", "--exit-interval", "8"]
    assert a_case.env_vars["A"] == "2"
    assert a_case.warnings == (
        "line 3: A stands in it twice, first in line 2: the last value counts",
        "line 7: --x stands in it twice, first in line 5: the last value counts",
        "line 8: --x stands in it twice, first in line 7: the last value counts",
    )


def test_a_value_in_place_of_a_merged_one_is_no_repetition(tmp_path: Path) -> None:
    text = "BASE: &b {--x: 1, --train-iters: 8}\nMODEL_ARGS:\n  <<: *b\n  --y: 2\n  --x: 3\n"
    a_case = case(tmp_path, text)
    assert a_case.warnings == ()
    assert dict(a_case.model_args) == {"--train-iters": "8", "--y": "2", "--x": "3"}
    assert list(a_case.model_args) == ["--train-iters", "--y", "--x"]  # the order of yq


def test_lint_warns_of_a_repeated_key_and_finds_nothing_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case(tmp_path, BARE + "ENV_VARS:\n  A: 1\n  A: 2\n")
    assert main(["cases", "lint", str(tmp_path / "cases"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cases"] == {"run": 1}
    (finding,) = found["findings"]
    assert (finding["level"], finding["kind"]) == ("warning", "repeated-key")
    assert finding["message"].startswith("line 4: A stands in it twice")


def test_hydras_arguments_are_read_and_passed_as_the_scripts_pass_them(tmp_path: Path) -> None:
    text = "MODEL_ARGS: {--train-iters: 8, ++model.width: 3, +new: a b, trainer.devices: 8, ~gone: true}\n"
    given = words(case(tmp_path, text))
    hydra = ["++model.width", "3", "+new", "a b", "trainer.devices", "8", "~gone"]
    assert given == ["--train-iters", "8", *hydra, "--exit-interval", "8"]


def test_nemos_arguments_are_one_word_each_and_its_cases_are_not_run(tmp_path: Path) -> None:
    hydra = "trainer.max_steps: 50, a.b: True, a.c: true, a.d: x y, a.e: $W, a.f: ''"
    text = f"ENV_VARS: {{W: 7}}\nMODEL_ARGS: {{{hydra}}}\n"
    a_case = case(tmp_path, text)
    values = {**os.environ, **command_line.paths(a_case, phase())}
    given = command_line.arguments(a_case, "h100", phase(), values, script="nemo llm pretrain")
    assert given == ["trainer.max_steps=50", "a.b=True", "a.c", "a.d=x y", "a.e=7"]
    assert reason_not_run(a_case) == "its scripts start NeMo, which is no part of Megatron-LM's checkout"


@pytest.mark.parametrize("key", ["train-iters", "seed", "--a; rm -rf x", "a.b;c", "+", ".a", "a."])
def test_what_is_no_argument_is_still_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"is no argument .* or a dotted name"):
        case(tmp_path, f"MODEL_ARGS:\n  {key}: 1\n")


# -- the lightweight mode ------------------------------------------------------------------------


def test_a_lightweight_case_trains_four_iterations_and_resumes_after_two(tmp_path: Path) -> None:
    a_case = case(tmp_path, LIGHT.replace("KIND", "ckpt-resume"))
    assert (a_case.train_iters("h100"), a_case.resume_at("h100"), a_case.save_interval("h100")) == (4, 2, 2)
    for given in (words(a_case, phase(n=4, k=2)), words(a_case, phase("resumed", n=4, k=2))):
        assert given == ["--train-iters", "50", "--exit-interval", "4", "--save-interval", "2", "--lr", ".1"]
    assert MegatronTrainer(a_case, "h100").launch(phase(n=4, k=2)).env["SKIP_PYTEST"] == "1"


def test_a_lightweight_case_of_one_phase_keeps_its_save_interval(tmp_path: Path) -> None:
    a_case = case(tmp_path, LIGHT.replace("KIND", "regular"))
    given = words(a_case, phase(n=4, k=2))
    assert given == ["--train-iters", "50", "--exit-interval", "4", "--save-interval", "25", "--lr", ".1"]


def test_a_lightweight_cases_other_layout_ends_after_four_iterations_too(tmp_path: Path) -> None:
    more = "MODEL_ARGS_2: {--train-iters: 50, --save-interval: 25}\n"
    a_case = case(tmp_path, LIGHT.replace("KIND", "ckpt-resume") + more)
    given = words(a_case, phase("resumed", n=4, k=2))
    assert given == ["--train-iters", "50", "--save-interval", "25", "--exit-interval", "4"]


@pytest.mark.parametrize("change", [("true", "false"), ("TEST_TYPE: KIND", "TEST_TYPE: release")])
def test_without_it_all_iterations_are_trained(change: tuple[str, str], tmp_path: Path) -> None:
    a_case = case(tmp_path, LIGHT.replace(*change).replace("KIND", "ckpt-resume"))
    assert a_case.train_iters("h100") == 50


# -- the script and the launcher -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "there", "expected"),
    [
        ("bert", ["pretrain_bert.py", "examples/bert/pretrain_bert.py"], "pretrain_bert.py"),
        ("bert", ["examples/bert/pretrain_bert.py"], "examples/bert/pretrain_bert.py"),
        ("t5", ["examples/t5/pretrain_t5.py"], "examples/t5/pretrain_t5.py"),
        ("t5", ["examples/a/pretrain_t5.py", "examples/t5/pretrain_t5.py"], "examples/t5/pretrain_t5.py"),
        ("hybrid", ["pretrain_mamba.py"], "pretrain_mamba.py"),
        ("hybrid", ["pretrain_hybrid.py", "pretrain_mamba.py"], "pretrain_hybrid.py"),
        ("bert", [], "pretrain_bert.py"),
    ],
)
def test_the_script_is_found_where_the_checkout_has_it(
    family: str, there: list[str], expected: str, checkout: Path, tmp_path: Path
) -> None:
    for path in there:
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).touch()
    assert MegatronTrainer(case(tmp_path, BARE, family), "h100").node.script == expected


def test_a_script_that_its_recipe_names_elsewhere_is_found_by_its_name(
    checkout: Path, tmp_path: Path
) -> None:
    recipes = checkout / "tests" / "test_utils" / "recipes"
    recipes.mkdir(parents=True)
    said = "spec: {script: 'TRAINING_SCRIPT_PATH=pretrain_bert.py'}\n"
    product = "products: [{test_case: [tiny], products: [{environment: [dev], platforms: [dgx_h100]}]}]\n"
    (recipes / "bert.yaml").write_text(said + product)
    (checkout / "examples" / "bert").mkdir(parents=True)
    (checkout / "examples" / "bert" / "pretrain_bert.py").touch()
    trainer = MegatronTrainer(case(tmp_path, BARE), "h100")
    assert trainer.node.script == "examples/bert/pretrain_bert.py"


TORCHRUN = ("python", "-m", "torch.distributed.run")


@pytest.mark.parametrize(
    ("asked", "torchrun", "ft_launcher", "expected", "note"),
    [
        ("ft_launcher", True, True, ("/bin/ft_launcher",), ""),
        ("torchrun", True, True, TORCHRUN, ""),
        ("ft_launcher", True, False, TORCHRUN,
         "LAUNCHER: ft_launcher is not installed here: torchrun starts the ranks, and restarts no"),
        ("torchrun", False, True, ("/bin/ft_launcher",),
         "LAUNCHER: torchrun is not installed here: ft_launcher starts the ranks, and may restart"),
        ("ft_launcher", False, False, ("ft_launcher",), ""),
    ],
)  # fmt: skip
def test_the_other_launcher_is_taken_where_only_that_is_here_and_a_note_says_so(
    asked: str, torchrun: bool, ft_launcher: bool, expected: tuple[str, ...], note: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(command_line._WORDS, "torchrun", TORCHRUN)
    monkeypatch.setattr(command_line, "find_spec", lambda name: name if torchrun else None)
    monkeypatch.setattr(
        command_line, "which", lambda name: f"/bin/{name}" if ft_launcher and name == "ft_launcher" else None
    )
    trainer = MegatronTrainer(case(tmp_path, f"LAUNCHER: {asked}\n{BARE}"), "h100")
    trainer.check()
    launch = trainer.launch(phase())
    assert launch.argv[: len(expected)] == expected
    assert ("--max-restarts=3" in launch.argv) == ("ft_launcher" in expected[0])
    assert [said.startswith(note) for said in launch.notes] == ([True] if note else [])


@pytest.mark.torch
def test_a_warning_of_the_case_is_a_note_of_its_verdict_once(tmp_path: Path) -> None:
    from harness.matrix import Cell
    from harness.protocol.run import run_cell

    text = (
        "ENV_VARS:\n  A: 1\n  A: 2\nMODEL_ARGS: {--train-iters: 4}\n"
        "HARNESS: {trainer: command, command: {train: ['true', '${EXIT_ITERS}'], resume: ['true']}}\n"
    )
    a_case = case(tmp_path, text)
    goldens, results = tmp_path / "goldens", tmp_path / "results"
    verdict = run_cell(
        Cell("cpu", "dev", "tiny"), cases=tmp_path, goldens=goldens, results=results, case=a_case
    )
    (said,) = [one for one in verdict.provenance["notes"] if "twice" in one]
    assert said.startswith("warning: tiny/model_config.yaml: line 3: A stands in it twice")
