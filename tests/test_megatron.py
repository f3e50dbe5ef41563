"""The Megatron-LM trainer: what it starts, argument for argument, and a stand-in really started so."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from harness.cases import Case, load_case
from harness.checkpoints import iterations
from harness.errors import CaseError, HarnessError, TrainerFailed, UsageError
from harness.matrix import Cell
from harness.protocol.plan import Options
from harness.protocol.run import run_cell
from harness.repository import read
from harness.trainers.base import Phase, PhaseName
from harness.trainers.megatron.adapter import MegatronTrainer, reason_not_run
from tests.launching import run_phase

if TYPE_CHECKING:
    from harness.verdict import Verdict

TESTS = Path(__file__).parent
CASES = TESTS.parent / "test_cases"
GPT = CASES / "gpt" / "gpt3_mcore_te_tp1_pp4_vp1_resume_torch_decoupled_lr"
MOE = CASES / "moe" / "gpt3_moe_mcore_te_tp4_ep2_etp2_pp2_resume_torch_dist_dist_optimizer"
STEPS, SAVED_AT = 8, 4
TINY = f"""\
ENV_VARS:
  CUDA_DEVICE_MAX_CONNECTIONS: 1
  NCCL_ALGO: Tree
  SEEN_BY_RANKS: ${{OUTPUT_PATH}}/seen
MODEL_ARGS:
  --num-layers: 2
  --log-params-norm: true
  --micro-batch-size: 4
  --train-iters: {STEPS}
  --save-interval: {SAVED_AT}
  --tensorboard-dir: ${{TENSORBOARD_PATH}}
  --save: ${{CHECKPOINT_SAVE_PATH}}
  --load: ${{CHECKPOINT_LOAD_PATH}}
  --pipeline-model-parallel-size: 2
TEST_TYPE: ckpt-resume
HARNESS:
  trainer: {{cpu: megatron}}
  world_size: 2
"""


@pytest.fixture(autouse=True)
def _nobody_elses_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_PATH", "DATA_CACHE_PATH", "CHECKPOINT_LOAD_PATH", "GPUS_PER_NODE", "MASTER_PORT",
                 "MASTER_ADDR", "MEGATRON_LM_PATH", "HARNESS_ALLOW_SCRIPTS", "PYTHONPATH",
                 "NCCL_ALGO", "NCCL_PROTO"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has the script, and is named as the checkout."""
    folder = tmp_path / "megatron-lm"
    folder.mkdir()
    (folder / "pretrain_gpt.py").touch()
    monkeypatch.setenv("MEGATRON_LM_PATH", str(folder))
    return folder


def case(tmp_path: Path, text: str, name: str = "tiny", family: str = "gpt") -> Case:
    folder = tmp_path / "cases" / family / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_config.yaml").write_text(text)
    return load_case(folder)


def phase(name: PhaseName = "continuous", *, steps: int = STEPS, at: int = SAVED_AT) -> Phase:
    results = Path("/results")
    load = results / "checkpoints" / "resumed-from" if name == "resumed" else None
    return Phase(
        name=name, folder=results / name, save=results / "checkpoints" / name, load=load,
        start=at if load else 0, stop=steps, train_iters=steps, save_interval=at,
    )  # fmt: skip


def words(a_case: Case, a_phase: Phase, hardware: str = "h100") -> list[str]:
    """The script's own arguments."""
    argv = MegatronTrainer(a_case, hardware).launch(a_phase).argv
    return list(argv[argv.index("pretrain_gpt.py") + 1 :])


# -- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [GPT, MOE], ids=["gpt", "moe"])
def test_both_heart_cases_get_the_arguments_that_megatrons_shell_makes_of_their_files(
    folder: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The files were written by the argument loop of _run_training.sh itself, run by bash.
    expected = (TESTS / "data" / "megatron" / f"{folder.name}.txt").read_text().splitlines()
    monkeypatch.setenv("DATA_PATH", "/mnt/artifacts")
    monkeypatch.setenv("DATA_CACHE_PATH", "/cache")
    assert words(load_case(folder), phase(steps=100, at=50)) == expected


def test_the_launcher_is_given_what_megatrons_scripts_give_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_PATH", "/mnt/artifacts")
    monkeypatch.setenv("MASTER_PORT", "29777")
    monkeypatch.setattr("harness.trainers.megatron.command_line.which", lambda name: f"/bin/{name}")
    launch = MegatronTrainer(load_case(MOE), "h100").launch(phase(steps=100, at=50))
    script = launch.argv.index("pretrain_gpt.py")
    assert Path(launch.argv[0]).name == "ft_launcher"
    assert launch.argv[1:script] == (
        "--nproc_per_node", "8", "--nnodes", "1", "--master_addr", "localhost", "--master_port", "29777",
        "--node_rank", "0", "--log-dir", "/results/continuous/logs/1", "--tee", "0:3,7:3",
        "--redirects", "3", "--max-restarts=3",
    )  # fmt: skip
    assert (launch.kind, launch.world_size, launch.cwd) == ("exec", 8, checkout)


def test_without_a_launcher_it_is_torchrun_of_this_environment(checkout: Path, tmp_path: Path) -> None:
    import sys

    argv = MegatronTrainer(case(tmp_path, TINY), "h100").launch(phase()).argv
    assert argv[:3] == (sys.executable, "-m", "torch.distributed.run")
    assert "--max-restarts=3" not in argv
    assert argv[argv.index("--tee") + 1] == "0:3,1:3"


def test_the_environment_is_the_scripts_with_the_cases_own_on_top(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_PROTO", "LL")
    monkeypatch.setenv("NCCL_BUFFSIZE", "")
    env = MegatronTrainer(case(tmp_path, TINY), "h100").launch(phase("resumed")).env
    assert env == {
        "NCCL_PROTO": "LL", "NCCL_ALGO": "Tree", "NCCL_COLLNET_ENABLE": "0", "NCCL_NVLS_ENABLE": "0",
        "NCCL_TUNER_PLUGIN": "", "NCCL_BUFFSIZE": "4194304", "TORCH_NCCL_AVOID_RECORD_STREAMS": "1",
        "WANDB_API_KEY": "", "ONE_LOGGER_JOB_CATEGORY": "test", "RUN_NUMBER": "2", "REPEAT": "1",
        "OUTPUT_PATH": "/results/resumed", "TENSORBOARD_PATH": "/results/resumed/tensorboard",
        "CHECKPOINT_SAVE_PATH": "/results/checkpoints/resumed",
        "CHECKPOINT_LOAD_PATH": "/results/checkpoints/resumed-from",
        "DATA_CACHE_PATH": "/results/resumed/data_cache", "LOG_DIR": "/results/resumed/logs/1",
        "CUDA_DEVICE_MAX_CONNECTIONS": "1", "SEEN_BY_RANKS": "/results/resumed/seen",
        "PYTHONPATH": f"{checkout}:",
    }  # fmt: skip


def test_a_run_from_the_start_finds_no_checkpoint_where_it_looks_for_one(
    checkout: Path, tmp_path: Path
) -> None:
    given = words(case(tmp_path, TINY), phase(), "cpu")
    assert given[given.index("--load") + 1] == "/results/continuous/no_checkpoint"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", ["--x"]),
        ('"true"', ["--x"]),
        ("false", ["--x", "false"]),
        ('""', []),
        ('"[a b]"', ["--x", "a", "b"]),
        ('"[1]*2+[0]"', ["--x", "[1]*2+[0]"]),
        ("([0]*3+[1]*12)", ["--x", "([0]*3+[1]*12)"]),
        ("two words", ["--x", "two words"]),
        ("'say \"it\" now'", ["--x", "say it now"]),
        ("1.0e-5", ["--x", "1.0e-5"]),
        ("M-M*-M", ["--x", "M-M*-M"]),
        ("on", ["--x", "on"]),
        ("${TRAIN_ITERS}", ["--x", "8"]),
    ],
)
def test_a_value_becomes_the_words_that_the_shell_makes_of_it(
    value: str, expected: list[str], checkout: Path, tmp_path: Path
) -> None:
    text = f"MODEL_ARGS:\n  --train-iters: 8\n  --x: {value}\n"
    given = words(case(tmp_path, text), phase())
    assert given == ["--train-iters", "8", *expected, "--exit-interval", "8"]


def test_an_exit_interval_of_the_case_is_replaced_where_it_stands(checkout: Path, tmp_path: Path) -> None:
    text = "MODEL_ARGS:\n  --exit-interval: 3\n  --train-iters: 8\n"
    assert words(case(tmp_path, text), phase()) == [
        "--exit-interval", "8", "--train-iters", "8",
    ]  # fmt: skip


def test_the_resumed_phase_takes_model_args_2_and_ends_alike(checkout: Path, tmp_path: Path) -> None:
    text = "MODEL_ARGS:\n  --train-iters: 8\n  --tp: 2\nMODEL_ARGS_2:\n  --train-iters: 8\n  --tp: 1\n"
    a_case = case(tmp_path, text)
    assert words(a_case, phase()) == ["--train-iters", "8", "--tp", "2", "--exit-interval", "8"]
    assert words(a_case, phase("resumed")) == ["--train-iters", "8", "--tp", "1", "--exit-interval", "8"]


@pytest.mark.parametrize(("sizes", "replicas"), [("", 8), ("  --pipeline-model-parallel-size: 4\n", 2)])
def test_who_holds_the_same_weights_is_what_tensors_and_pipeline_leave(
    checkout: Path, tmp_path: Path, sizes: str, replicas: int
) -> None:
    text = f"MODEL_ARGS:\n  --train-iters: 8\n{sizes}HARNESS:\n  world_size: 8\n"
    assert MegatronTrainer(case(tmp_path, text), "h100").replicas == replicas


@pytest.mark.parametrize(
    ("sizes", "unasked"),
    [
        ("", False),
        ("  --tensor-model-parallel-size: 2\n", True),
        ("  --pipeline-model-parallel-size: 2\n", True),
        ("  --tensor-model-parallel-size: 2\n  --ckpt-format: torch\n", False),
        ("  --context-parallel-size: 2\n  --ckpt-format: torch\n", True),
    ],
)
def test_of_copies_that_its_check_does_not_look_at_nothing_is_said(
    checkout: Path, tmp_path: Path, sizes: str, unasked: bool
) -> None:
    text = f"MODEL_ARGS:\n  --train-iters: 8\n{sizes}HARNESS:\n  world_size: 2\n"
    trainer = MegatronTrainer(case(tmp_path, text), "h100")
    assert trainer.unasked == unasked
    assert trainer.replicas == (1 if sizes else 2)


def test_a_probe_loads_and_converts_to_the_format_that_there_is(checkout: Path, tmp_path: Path) -> None:
    text = "MODEL_ARGS:\n  --train-iters: 8\n  --async-save: true\n  --ckpt-format: torch\n"
    probe = Phase("probe", Path("/r/probe"), Path("/r/saved"), Path("/r/from"), 4, 4, 8, 4)
    exits = ["--exit-interval", "4"]
    trainer = MegatronTrainer(case(tmp_path, text), "h100")
    assert words(trainer.case, probe) == [
        "--train-iters", "8", "--ckpt-format", "torch", *exits,
        "--ckpt-convert-format", "torch", "--ckpt-convert-save", "/r/saved",
    ]  # fmt: skip
    assert trainer.saved(probe, 4) == Path("/r/saved/torch/iter_0000004")
    asked = words(trainer.case, Phase("replicas", Path("/r/x"), Path("/r/y"), Path("/r/from"), 4, 5, 8, 4))
    assert asked[-4:] == ["--exit-interval", "5", "--check-weight-hash-across-dp-replicas-interval", "9"]
    bare = "MODEL_ARGS:\n  --train-iters: 8\n"
    assert words(case(tmp_path, bare), probe)[-4:-2] == ["--ckpt-convert-format", "torch_dist"]


def test_what_the_case_itself_has_otherwise_in_the_resumed_phase_is_no_loss(
    checkout: Path, tmp_path: Path
) -> None:
    text = (
        "MODEL_ARGS:\n  --train-iters: 8\n  --log-interval: 1\n"
        "MODEL_ARGS_2:\n  --train-iters: 8\n  --log-interval: 2\n  --no-load-rng: true\n"
    )
    rules = MegatronTrainer(case(tmp_path, text), "h100").rules
    own = [rule.entry for rule in rules if "MODEL_ARGS_2" in rule.reason]
    assert own == ["args.log_interval", "args.no_load_rng", "args.load_rng"]
    probed, begun = MegatronTrainer.probed
    assert begun.matches("common_state/shard_0_1.0.rerun_state_machine.current_iteration", [])
    assert not begun.matches("iteration", [])
    assert probed.matches("args.tensor_model_parallel_size", [])
    for name in ("consumed_train_samples", "consumed_valid_samples", "skipped_train_samples"):
        assert not probed.matches(f"args.{name}", [])


def test_a_profile_changes_the_arguments_of_its_hardware_only(checkout: Path, tmp_path: Path) -> None:
    text = (
        "MODEL_ARGS:\n  --train-iters: 8\n  --bf16: true\n  --lr: .1\n"
        "HARNESS:\n  profiles:\n    a100: {--bf16: false, --lr: .2}\n"
    )
    a_case = case(tmp_path, text)
    exits = ["--exit-interval", "8"]
    assert words(a_case, phase(), "a100") == ["--train-iters", "8", "--lr", ".2", *exits]
    assert words(a_case, phase()) == ["--train-iters", "8", "--bf16", "--lr", ".1", *exits]


# -- recipes -------------------------------------------------------------------------------------

RECIPE = """\
type: basic
spec:
  model: gpt
  nodes: 1
  gpus: 8
  platforms: dgx_a100
  script: |-
    ARGUMENTS=(
        "DATA_PATH=/mnt/artifacts"
        "TRAINING_SCRIPT_PATH=examples/train.py"
    )
products:
  - test_case: [tiny]
    products:
      - environment: [dev, lts]
        platforms: [dgx_h100]
        gpus: 4
      - environment: [dev]
  - test_case: [wide]
    products:
      - environment: [dev]
        nodes: 2
"""


@pytest.fixture
def recipes(checkout: Path) -> None:
    folder = checkout / "tests" / "test_utils" / "recipes" / "h100"
    folder.mkdir(parents=True)
    (folder / "gpt.yaml").write_text(RECIPE)
    (folder / "broken.yaml").write_text("tiny: [")
    (checkout / "examples").mkdir()
    (checkout / "examples" / "train.py").touch()


BARE = "MODEL_ARGS: {--train-iters: 8, --save-interval: 4}\n"


@pytest.mark.usefixtures("recipes")
@pytest.mark.parametrize(("hardware", "gpus"), [("h100", 4), ("a100", 8), ("h200", 4)])
def test_gpus_and_script_come_from_the_recipe_of_that_machine_or_the_one_most_like_it(
    hardware: str, gpus: int, tmp_path: Path
) -> None:
    node = MegatronTrainer(case(tmp_path, BARE), hardware).node
    assert (node.gpus, node.script) == (gpus, "examples/train.py")


@pytest.mark.usefixtures("recipes")
def test_the_cases_word_and_the_environments_win_over_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, said = (case(tmp_path, BARE + text) for text in ("", "HARNESS: {world_size: 3}\n"))
    monkeypatch.setenv("GPUS_PER_NODE", "2")
    assert MegatronTrainer(plain, "h100").world_size == 2
    assert MegatronTrainer(said, "h100").world_size == 3


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(("family", "script"), [("gpt", "pretrain_gpt.py"), ("t5", "pretrain_t5.py")])
def test_a_case_that_no_recipe_names_runs_its_familys_script_on_eight(
    family: str, script: str, tmp_path: Path
) -> None:
    node = MegatronTrainer(case(tmp_path, BARE, family=family), "h100").node
    assert (node.gpus, node.script) == (8, script)


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.usefixtures("recipes")
@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("TEST_TYPE: frozen-start\n" + BARE, "tiny", "TEST_TYPE frozen-start"),
        ("TEST_TYPE: release\n" + BARE, "tiny", "TEST_TYPE release"),
        ("MODE: inference\n" + BARE, "tiny", "MODE inference"),
        ("MODE: rl\n" + BARE, "tiny", "MODE rl"),
        ("TEST_EVALUATION: xpass\n" + BARE, "tiny", "TEST_EVALUATION xpass"),
        ("BEFORE_SCRIPT: rm -rf /\n" + BARE, "tiny", "--allow-scripts"),
        ("TEST_TYPE: frozen-resume\n" + BARE, "tiny", "CHECKPOINT_LOAD_PATH names none"),
        (BARE, "wide", "h100/gpt.yaml runs it on 2 nodes"),
        ("MODEL_ARGS: {--train-iters: 8, --data-path: '${DATA_PATH}/x'}\n", "tiny", "DATA_PATH has no value"),
        ("MODEL_ARGS_2: {--data-path: '${NOWHERE}'}\n" + BARE, "tiny", "NOWHERE has no value"),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_reason(
    text: str, name: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(HarnessError) as caught:
        MegatronTrainer(case(tmp_path, text, name), "h100").check()
    assert expected in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", ["ckpt-resume", "frozen-resume", "regular"])
def test_what_megatrons_scripts_train_twice_or_once_is_run(kind: str, tmp_path: Path) -> None:
    a_case = case(tmp_path, f"TEST_TYPE: {kind}\n" + BARE)
    assert reason_not_run(a_case) is None
    assert MegatronTrainer(a_case, "h100").resumes == (kind != "regular")


def test_without_a_checkout_the_ways_to_name_one_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="set MEGATRON_LM_PATH, give --megatron-lm"):
        MegatronTrainer(case(tmp_path, BARE), "h100").check()
    monkeypatch.setenv("MEGATRON_LM_PATH", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="gone is not there"):
        MegatronTrainer(case(tmp_path, BARE), "h100").check()
    monkeypatch.setenv("MEGATRON_LM_PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"pretrain_gpt\.py: is not there"):
        MegatronTrainer(case(tmp_path, BARE), "h100").check()


def test_a_checkout_may_be_named_by_the_projects_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine" / "sub").mkdir(parents=True)
    (tmp_path / "mlm").mkdir()
    (tmp_path / "mlm" / "pretrain_gpt.py").touch()
    (tmp_path / "mine" / "pyproject.toml").write_text('[tool.harness]\nmegatron-lm = "../mlm"\n')
    monkeypatch.chdir(tmp_path / "mine" / "sub")
    MegatronTrainer(case(tmp_path, BARE), "h100").check()
    read(tmp_path / "mine")  # whoever reads the tables of the repository knows the key too
    (tmp_path / "mine" / "pyproject.toml").write_text("[tool.harness]\nmegatron-lm = 5\n")
    with pytest.raises(UsageError, match="megatron-lm: found 5, expected a folder"):
        MegatronTrainer(case(tmp_path, BARE), "h100").check()


# -- really started ------------------------------------------------------------------------------


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's folder is the checkout; cells of other tests may run beside it."""
    folder = TESTS / "stand_ins"
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("MEGATRON_LM_PATH", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def run(tmp_path: Path, a_case: Case, **options: Any) -> Verdict:
    return run_cell(
        Cell("cpu", "dev", a_case.name), case=a_case, cases=tmp_path / "cases",
        goldens=tmp_path / "goldens", results=tmp_path / "results",
        options=Options(**{"protocol": "full", "keep_checkpoints": True, **options}),
    )  # fmt: skip


def failing(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.message for check in verdict.checks if not check.passed}


def started(results: Path, name: str) -> Mapping[str, Any]:
    told: dict[str, Any] = json.loads((results / name / "tensorboard" / "started.json").read_text())
    return told


@pytest.mark.torch
def test_a_stand_in_started_by_torchruns_agent_is_resumed_and_a_resume_bug_in_it_is_found(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_case = case(tmp_path, TINY)
    recorded = run(tmp_path, a_case, golden_update=True)
    results = tmp_path / "results" / "cpu" / "dev" / "tiny"
    assert failing(recorded).keys() == {"golden: recorded"}, failing(recorded)

    continuous, resumed = started(results, "continuous"), started(results, "resumed")
    assert continuous["cwd"] == str(stand_in)
    assert continuous["environment"]["NCCL_ALGO"] == "Tree"
    assert continuous["environment"]["SEEN_BY_RANKS"] == str(results / "continuous" / "seen")
    assert continuous["environment"]["RANK"] == "1"
    assert (continuous["environment"]["RUN_NUMBER"], resumed["environment"]["RUN_NUMBER"]) == ("1", "2")
    assert continuous["argv"][-2:] == ["--exit-interval", str(STEPS)]
    checkpoints = results / "checkpoints"
    assert iterations(checkpoints / "continuous") == (SAVED_AT, STEPS)
    assert iterations(checkpoints / "resumed-from") == (SAVED_AT,)
    assert iterations(checkpoints / "resumed") == (STEPS,)
    saved = checkpoints / "resumed" / f"iter_{STEPS:07d}" / "mp_rank_00_001" / "model_optim_rng.pt"
    assert saved.is_file()
    assert recorded.provenance["fingerprint"]["layout"] == "TP1 PP2 CP1 EP1 ETP1 world 2"

    # The host's stream is further on, in the way that the trainer's rule allows, and in no other.
    assert recorded.coverage is not None
    (rule,) = (rule for rule in recorded.coverage.rules if "torch_rng_state" in rule.entry)
    assert (rule.where, rule.matched) == ("trainer", 2)
    assert "of seeds" in rule.reason

    # What was recorded is what both a run from 0 and a resumed one are compared with, bit for bit.
    for protocol in ("full", "fast"):
        again = run(tmp_path, a_case, protocol=protocol)
        judged = {check.name: check.passed for check in again.checks}
        assert judged["golden: state: rng"], failing(again)
        assert "continuous: lm loss" not in judged or protocol == "full"
        assert not any("state" in name for name in failing(again)), failing(again)

    # The same bug as nobody would see it: only the environment of the ranks is another.
    monkeypatch.setenv("STAND_IN_FORGETS", "optimizer")
    broken = run(tmp_path, a_case)
    assert broken.status == "failed"
    assert {check.against for check in broken.checks if not check.passed} == {"continuous", "state"}
    assert any("optimizer" in name for name in failing(broken)), failing(broken)
    assert broken.diagnosis is not None


@pytest.mark.torch
def test_a_recorded_case_with_arguments_of_the_resumed_phase_is_green_in_auto(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process logs the time of its first iteration, and only one that exits early validates nothing."""
    again = TINY[TINY.index("MODEL_ARGS:") : TINY.index("TEST_TYPE")].replace("MODEL_ARGS", "MODEL_ARGS_2")
    a_case = case(tmp_path, TINY.replace("TEST_TYPE", f"{again}TEST_TYPE"))
    recorded = run(tmp_path, a_case, golden_update=True)
    assert failing(recorded).keys() == {"golden: recorded"}, failing(recorded)
    green = run(tmp_path, a_case, protocol="auto")
    assert not failing(green)
    assert (green.status, green.provenance["protocol"]) == ("passed", "fast")
    assert not any(check.metric == "iteration-time" for check in green.checks)  # behind the stand-in


@pytest.mark.torch
def test_a_worker_that_is_killed_ends_the_phase_and_nothing_is_left(stand_in: Path, tmp_path: Path) -> None:
    a_case = case(tmp_path, TINY.replace(f": {STEPS}\n", ": 100000\n"))
    a_phase = Phase("continuous", tmp_path / "out", tmp_path / "save", None, 0, 100000, 100000, 100000)
    launch = MegatronTrainer(a_case, "cpu").launch(a_phase)
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            time.sleep(0.2)
            told = a_phase.tensorboard / "started.json"
            if told.is_file() and told.read_text():
                killed.append(json.loads(told.read_text())["pid"])
                os.kill(killed[0], signal.SIGKILL)

    thread = Thread(target=kill_one)
    thread.start()
    with pytest.raises(TrainerFailed) as caught:
        run_phase(launch, phase="continuous", folder=a_phase.folder)
    thread.join()
    assert killed
    assert caught.value.rank == 1
    assert caught.value.reason == "was killed by SIGKILL, perhaps out of memory"
    assert "Signal 9 (SIGKILL)" in caught.value.log_tail
    assert not ours(tmp_path)


@pytest.mark.torch
def test_one_that_is_killed_as_a_protocol_is_resumed_from_the_folder_as_it_was_left(
    stand_in: Path, tmp_path: Path
) -> None:
    a_case = case(tmp_path, TINY.replace(f"iters: {STEPS}\n", "iters: 400\n"))
    verdict = run(tmp_path, a_case, protocol="crash", crash_rank="1")
    assert failing(verdict).keys() == {"golden: is there"}, failing(verdict)
    said = {check.name: check.message for check in verdict.checks}
    assert "rank 1 killed" in said["crash: what is left can be resumed from"]
    assert "it went on from iteration" in said["crash: it goes on from a whole checkpoint"]
    assert not ours(tmp_path)


def ours(tmp_path: Path) -> list[psutil.Process]:
    """Processes that this test has started, wherever they are now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("OUTPUT_PATH", "").startswith(str(tmp_path)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_allowed_scripts_run_before_and_after_in_the_shell_of_the_command(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = tmp_path / "bin" / "ft_launcher"
    launcher.parent.mkdir()
    launcher.write_text('#!/bin/sh\necho "launched with SAID=$SAID and $# words"; exit 5\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", f"{launcher.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HARNESS_ALLOW_SCRIPTS", "1")
    text = f"{BARE}LAUNCHER: ft_launcher\nBEFORE_SCRIPT: export SAID=$REPEAT\nAFTER_SCRIPT: echo after\n"
    trainer = MegatronTrainer(case(tmp_path, text), "h100")
    trainer.check()
    a_phase = Phase("continuous", tmp_path / "out", tmp_path / "save", None, 0, 8, 8, 4)
    launch = trainer.launch(a_phase)
    with pytest.raises(TrainerFailed) as caught:
        run_phase(launch, phase="continuous", folder=a_phase.folder)
    assert "status 5" in caught.value.reason
    assert caught.value.log_tail.splitlines() == [
        f"launched with SAID=1 and {len(launch.argv) - 5} words",
        "after",
    ]


def test_what_megatron_cannot_do_is_refused_and_not_pretended(checkout: Path, tmp_path: Path) -> None:
    nowhere = Path("/results/probe")
    text = "MODEL_ARGS: {--train-iters: 8, --save-interval: 4, --ckpt-format: fsdp_dtensor}\n"
    with pytest.raises(UsageError, match=r"only in the formats torch and torch_dist.*has fsdp_dtensor"):
        MegatronTrainer(case(tmp_path, text), "h100").launch(
            Phase("probe", nowhere, nowhere, nowhere, 4, 4, 8, 4)
        )
    with pytest.raises(CaseError, match="no such key"):
        case(tmp_path, BARE + "TEST_TIPE: regular\n")
