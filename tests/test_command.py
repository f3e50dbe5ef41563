"""The command trainer: anybody's script, in any layout, stopped by itself or by the harness."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from harness.cases import Case, load_case
from harness.errors import CaseError, CheckpointError, TrainerFailed, UsageError
from harness.matrix import Cell
from harness.protocol.dry_run import dry_run, phases
from harness.protocol.plan import Options
from harness.protocol.results import MARKER, ResultsFolder
from harness.protocol.run import run_cell
from harness.trainers.base import Phase
from harness.trainers.command.adapter import CommandTrainer, stops_by_itself
from harness.verdict.reading import read_verdict
from tests.launching import run_phase

if TYPE_CHECKING:
    from harness.verdict import Verdict

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "docs" / "examples"
STEPS, SAVED_AT = 8, 4
STOPS = ["--stop", "${EXIT_ITERS}"]


@pytest.fixture(autouse=True)
def _cores_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained here is a number; it need not wait for whoever trains beside it."""
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))


def case(tmp_path: Path, *more: str, train: list[str] | None = None, steps: int = STEPS, **keys: Any) -> Case:
    """A case whose script is the stand-in, with a few words more."""
    words = [
        "python", "train.py", "--iters", "${TRAIN_ITERS}", "--every", "${SAVE_INTERVAL}",
        "--save", "${CHECKPOINT_SAVE_PATH}", "--metrics", "${OUTPUT_PATH}/metrics.jsonl", *more,
    ]  # fmt: skip
    command = (
        {"train": train}
        if train
        else {"train": words, "resume": [*words, "--load", "${CHECKPOINT_LOAD_PATH}"]}
    )
    command |= keys.pop("command", {})
    folder = tmp_path / "cases" / "mine" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(TESTS / "stand_ins" / "plain_script.py", folder / "train.py")
    env = keys.pop("env", {})
    (folder / "model_config.yaml").write_text(
        json.dumps(
            {
                "ENV_VARS": env,
                "MODEL_ARGS": {"--train-iters": steps, "--save-interval": steps // 2},
                "HARNESS": {"trainer": "command", "command": command, **keys},
            }
        )
    )
    return load_case(folder)


def run(tmp_path: Path, a_case: Case, **options: Any) -> Verdict:
    return run_cell(
        Cell("cpu", "dev", a_case.name), case=a_case, cases=tmp_path / "cases",
        goldens=tmp_path / "goldens", results=tmp_path / "results",
        options=Options(protocol=options.pop("protocol", "full"), keep_checkpoints=True, **options),
    )  # fmt: skip


def failing(verdict: Verdict, *, golden: bool = False) -> dict[str, str]:
    """What failed; that there is no golden is not of interest in most tests."""
    return {
        check.name: check.message
        for check in verdict.checks
        if not check.passed and (golden or check.against != "golden")
    }


def results(tmp_path: Path) -> Path:
    return tmp_path / "results" / "cpu" / "dev" / "tiny"


def one_phase(tmp_path: Path, name: str = "continuous", *, stop: int = STEPS) -> Phase:
    return Phase(
        name=name,  # type: ignore[arg-type]
        folder=tmp_path / "out" / name, save=tmp_path / "save" / name,
        load=tmp_path / "load" if name == "resumed" else None,
        start=SAVED_AT if name == "resumed" else 0, stop=stop, train_iters=STEPS, save_interval=SAVED_AT,
    )  # fmt: skip


# -- verdicts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout",
    [
        "iter_{:07d}/state.json",
        "checkpoint-{}/state.json",
        "epoch=0-step={}.ckpt.json",
        "model_{}.json+optim_{}.json",
        "last.json",
    ],
)
def test_a_sound_script_resumes_whatever_its_checkpoints_are_called(layout: str, tmp_path: Path) -> None:
    verdict = run(tmp_path, case(tmp_path, "--layout", layout, *STOPS))
    assert verdict.status == "failed", verdict.diagnosis  # there is no golden
    assert not failing(verdict)
    against = {check.against for check in verdict.checks}
    assert against == {"golden", "continuous", "state"}
    assert {"interrupted", "resumed", "continuous"} <= verdict.timing.keys()


def test_a_recorded_golden_lets_the_script_pass_exactly(tmp_path: Path) -> None:
    a_case = case(tmp_path, *STOPS)
    run(tmp_path, a_case, golden_update=True)
    full = run(tmp_path, a_case)
    assert full.passed, failing(full, golden=True)
    assert full.provenance["compared"] == "exact"
    fast = run(tmp_path, a_case, protocol="fast")
    assert fast.passed, failing(fast, golden=True)
    assert "continuous" not in fast.timing


@pytest.mark.parametrize("forgotten", ["model", "optimizer", "rng_state", "iteration"])
def test_what_a_script_forgets_to_restore_fails_its_verdict(forgotten: str, tmp_path: Path) -> None:
    verdict = run(tmp_path, case(tmp_path, *STOPS, "--forgets", forgotten))
    assert verdict.status == "failed"
    assert failing(verdict)
    assert verdict.diagnosis is not None


def test_a_script_that_goes_on_in_one_folder_is_found_there(tmp_path: Path) -> None:
    a_case = case(tmp_path, *STOPS)
    words = [word.replace("SAVE_PATH", "LOAD_PATH") for word in a_case.harness.command.resume]  # type: ignore[union-attr]
    verdict = run(tmp_path, case(tmp_path, *STOPS, command={"resume": words}))
    assert not failing(verdict)
    assert not list((results(tmp_path) / "checkpoints" / "resumed").iterdir())


def test_one_command_for_both_is_enough(tmp_path: Path) -> None:
    """Without ``resume`` it is ``train`` again, which looks for a checkpoint by itself."""
    train = list(case(tmp_path, *STOPS, "--load", "${CHECKPOINT_LOAD_PATH}").harness.command.train)  # type: ignore[union-attr]
    verdict = run(tmp_path, case(tmp_path, train=train))
    assert not failing(verdict)


def test_event_files_are_read_as_well(tmp_path: Path) -> None:
    script = (
        "import sys, json, pathlib\n"
        "from tensorboard.summary.writer.event_file_writer import EventFileWriter\n"
        "from tensorboard.compat.proto.event_pb2 import Event\n"
        "from tensorboard.compat.proto.summary_pb2 import Summary\n"
        "first, stop, events, save = *map(int, sys.argv[1:3]), *map(pathlib.Path, sys.argv[3:])\n"
        "writer = EventFileWriter(str(events))\n"
        "for i in range(first + 1, stop + 1):\n"
        "    value = Summary.Value(tag='loss', simple_value=1 / i)\n"
        "    writer.add_event(Event(step=i, wall_time=i, summary=Summary(value=[value])))\n"
        "writer.close()\n"
        "(save / f'step_{stop}.json').write_text(json.dumps({'model': stop}))\n"
    )
    words = ["${EXIT_ITERS}", "${TENSORBOARD_PATH}", "${CHECKPOINT_SAVE_PATH}"]
    train, resume = (["python", "-c", script, first, *words] for first in ("0", str(SAVED_AT)))
    a_case = case(tmp_path, command={"train": train, "resume": resume})
    verdict = run(tmp_path, a_case)
    assert not failing(verdict)
    assert any(check.metric == "loss" and check.against == "continuous" for check in verdict.checks)


# -- a script that cannot be told where to stop ----------------------------------------------------


@pytest.mark.parametrize("manners", ["die", "save"])
def test_a_script_that_cannot_stop_is_ended_at_its_checkpoint(manners: str, tmp_path: Path) -> None:
    a_case = case(tmp_path, "--pause", "0.02", "--when-told-to-end", manners, steps=120)
    assert not stops_by_itself(a_case)
    verdict = run(tmp_path, a_case)
    assert not failing(verdict)
    log = (results(tmp_path) / "interrupted" / "logs" / "trainer.log").read_text()
    assert "the checkpoint of iteration 60 is there; the command is ended" in log
    assert "trained by" not in log
    resumed_from = results(tmp_path) / "checkpoints" / "resumed-from"
    assert [path.name for path in resumed_from.iterdir()] == ["iter_0000060"]


def preempted(tmp_path: Path, *command: str, grace: float = 0.3) -> subprocess.CompletedProcess[str]:
    """The command between itself and the harness, as the trainer starts it but for the patience."""
    program = (
        f"import sys; import harness.trainers.command.preemption as p; p._GRACE = {grace}; sys.exit(p.main())"
    )
    told = [str(tmp_path / "save"), "4", "8", "4", str(tmp_path)]
    words = [sys.executable, "-c", program, *told, "--", *command]
    return subprocess.run(words, capture_output=True, text=True, cwd=TESTS.parent, check=False)


def stand_in(tmp_path: Path, *more: str) -> list[str]:
    return [
        sys.executable, str(TESTS / "stand_ins" / "plain_script.py"), "--iters", "100000", "--every", "4",
        "--save", str(tmp_path / "save"), "--metrics", str(tmp_path / "metrics.jsonl"), *more,
    ]  # fmt: skip


def test_one_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    done = preempted(tmp_path, *stand_in(tmp_path, "--when-told-to-end", "ignore", "--pause", "0.05"))
    assert done.returncode == 0
    assert "is ended" in done.stdout


def test_one_that_ends_without_a_checkpoint_to_resume_from_fails(tmp_path: Path) -> None:
    done = preempted(tmp_path, *stand_in(tmp_path, "--iters", "3"))
    assert done.returncode == 3
    assert "no checkpoint of iteration 4 was seen" in done.stderr
    done = preempted(tmp_path, *stand_in(tmp_path, "--iters", "8", "--layout", "last.json"))
    assert done.returncode == 3


def test_one_that_is_done_before_it_is_looked_at_has_its_checkpoint_all_the_same(tmp_path: Path) -> None:
    done = preempted(tmp_path, *stand_in(tmp_path, "--iters", "8"))
    assert done.returncode == 0
    assert "is ended" not in done.stdout


def test_one_that_writes_its_parts_with_pauses_is_ended_after_the_last(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "save = pathlib.Path(sys.argv[1]) / 'save' / 'step_4'\n"
        "save.mkdir(parents=True)\n"
        "for part, pause in enumerate((0.8, 1.6, 600)):\n"
        "    (save / f'{part}.pt').write_text('x')\n"
        "    time.sleep(pause)\n"
    )
    assert preempted(tmp_path, sys.executable, "-c", script, str(tmp_path)).returncode == 0
    assert sorted(path.name for path in (tmp_path / "save" / "step_4").iterdir()) == ["0.pt", "1.pt", "2.pt"]


def test_its_own_failure_stays_its_own(tmp_path: Path) -> None:
    assert preempted(tmp_path, sys.executable, "-c", "raise SystemExit(7)").returncode == 7
    assert preempted(tmp_path, sys.executable, "-c", "import os; os.kill(os.getpid(), 9)").returncode == 137
    missing = preempted(tmp_path, str(tmp_path / "nothing"))
    assert (missing.returncode, missing.stderr.splitlines()[-1][-25:]) == (127, "No such file or directory")


def test_a_half_written_line_or_record_is_cut_off_when_the_command_is_ended(tmp_path: Path) -> None:
    from harness.metrics import read_metrics, stdout

    script = (
        "import pathlib, sys, time\n"
        "from tensorboard.summary.writer.event_file_writer import EventFileWriter\n"
        "from tensorboard.compat.proto.event_pb2 import Event\n"
        "from tensorboard.compat.proto.summary_pb2 import Summary\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "writer = EventFileWriter(str(root / 'events'))\n"
        "for i in range(1, 5):\n"
        "    value = Summary.Value(tag='loss', simple_value=i)\n"
        "    writer.add_event(Event(step=i, wall_time=i, summary=Summary(value=[value])))\n"
        "writer.close()\n"
        "(path,) = (root / 'events').iterdir()\n"
        "path.write_bytes(path.read_bytes() + path.read_bytes()[:30])\n"
        '(root / \'metrics.jsonl\').write_text(\'{"step": 1, "x": 1}\\n{"step": 2, \')\n'
        "(root / 'logs').mkdir()\n"
        "(root / 'logs' / 'trainer.log').write_text('step 1 y 5\\nstep 2 y 5')\n"
        "(root / 'save').mkdir()\n"
        "(root / 'save' / 'step_4.pt').touch()\n"
        "time.sleep(600)\n"
    )
    stdout.declare(tmp_path, [r"step (?P<step>\d+) y (?P<y>\d+)"])
    assert preempted(tmp_path, sys.executable, "-c", script, str(tmp_path)).returncode == 0
    found = read_metrics(tmp_path / "events", tmp_path)
    assert found["loss"].values.tolist() == [1, 2, 3, 4]
    assert found["x"].values.tolist() == [1]
    assert found["y"].values.tolist() == [5]


# -- launches --------------------------------------------------------------------------------------


def ours(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TEST_MARK") == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_hung_command_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys, time\n"
        "subprocess.Popen(['sleep', '600'])\n"
        "subprocess.Popen(['setsid', 'sh', '-c', 'sleep 600 & sleep 600'])\n"
        "print('hanging', flush=True)\n"
        "time.sleep(600)\n"
    )
    mark = str(tmp_path)
    a_case = case(tmp_path, train=["python", "-c", script], env={"TEST_MARK": mark})
    launch = CommandTrainer(a_case, "cpu").launch(one_phase(tmp_path))
    with pytest.raises(TrainerFailed) as caught:
        run_phase(launch, phase="continuous", folder=tmp_path / "out", timeout=4)
    assert "gave no sign of life" in caught.value.reason
    assert "hanging" in caught.value.log_tail
    assert not ours(mark)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("print('the very last words'); raise SystemExit(9)", "exited with status 9"),
    ],
)
def test_how_a_command_ended_is_told_with_its_last_words(script: str, reason: str, tmp_path: Path) -> None:
    verdict = run(tmp_path, case(tmp_path, train=["python", "-c", script]))
    assert (verdict.status, verdict.exit_code) == ("error", 4)
    assert verdict.diagnosis is not None
    assert verdict.diagnosis.component == "crash"
    assert any(reason in line for line in verdict.diagnosis.evidence), verdict.diagnosis.evidence


@pytest.mark.torch
def test_processes_under_torchrun_are_one_command_to_the_harness(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; "
        "(pathlib.Path(sys.argv[1]) / os.environ['RANK']).write_text(os.environ['WORLD_SIZE'])"
    )
    a_case = case(tmp_path, train=[
        "torchrun", "--standalone", "--nproc_per_node", "2", "ranks.py", "${OUTPUT_PATH}",
    ], world_size=2)  # fmt: skip
    (a_case.directory / "ranks.py").write_text(script)
    trainer, a_phase = CommandTrainer(a_case, "cpu"), one_phase(tmp_path)
    trainer.check()
    assert trainer.world_size == 2
    run_phase(trainer.launch(a_phase), phase="continuous", folder=a_phase.folder)
    assert [(a_phase.folder / rank).read_text() for rank in "01"] == ["2", "2"]


def test_a_command_starts_beside_its_case_file_with_the_harnesss_own_python(tmp_path: Path) -> None:
    a_case = case(tmp_path, *STOPS, env={"WHERE": "${OUTPUT_PATH}/x", "PATH": "/nowhere"})
    launch = CommandTrainer(a_case, "cpu").launch(one_phase(tmp_path))
    assert launch.cwd == a_case.directory
    assert launch.env["WHERE"] == str(tmp_path / "out" / "continuous" / "x")
    assert shutil.which("python", path=launch.env["PATH"]) == str(Path(sys.executable).parent / "python")


def test_placeholders_of_a_phase_are_its_own(tmp_path: Path) -> None:
    names = ["TENSORBOARD_PATH", "CHECKPOINT_SAVE_PATH", "CHECKPOINT_LOAD_PATH", "OUTPUT_PATH", "TRAIN_ITERS",
             "SAVE_INTERVAL", "EXIT_ITERS"]  # fmt: skip
    a_case = case(tmp_path, train=["true", *(f"${{{name}}}" for name in names)])
    trainer = CommandTrainer(a_case, "cpu")
    assert trainer.launch(one_phase(tmp_path, "interrupted", stop=SAVED_AT)).argv[1:] == (
        f"{tmp_path}/out/interrupted/tensorboard", f"{tmp_path}/save/interrupted",
        f"{tmp_path}/save/interrupted", f"{tmp_path}/out/interrupted", "8", "4", "4",
    )  # fmt: skip
    assert trainer.launch(one_phase(tmp_path, "resumed")).argv[3] == f"{tmp_path}/load"


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["no-such-program-anywhere"], "no-such-program-anywhere is not found"),
        (["./train.sh"], r"\./train\.sh is not found"),
        (["python", "${NOWHERE_AT_ALL}"], "NOWHERE_AT_ALL has no value here"),
    ],
)
def test_a_command_that_cannot_start_is_refused_before_anything_does(
    words: list[str], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(CaseError, match=expected):
        run(tmp_path, case(tmp_path, train=words))
    (verdict,) = (tmp_path / "results").rglob("verdict.json")
    assert read_verdict(verdict).status == "refused"
    assert sorted(path.name for path in verdict.parent.iterdir()) == [MARKER, "verdict.json"]


def test_a_command_is_a_list_and_is_there(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="never a shell string"):
        case(tmp_path, command={"train": "python train.py && rm -rf /"})
    a_case = case(tmp_path)
    file = a_case.directory / "model_config.yaml"
    file.write_text("MODEL_ARGS: {--train-iters: 8, --save-interval: 4}\nHARNESS: {trainer: command}\n")
    with pytest.raises(CaseError, match="HARNESS: command is missing"):
        CommandTrainer(load_case(file), "cpu").check()


def test_a_probe_is_refused_and_a_missing_checkpoint_told(tmp_path: Path) -> None:
    trainer, a_phase = CommandTrainer(case(tmp_path), "cpu"), one_phase(tmp_path)
    with pytest.raises(UsageError, match="load and save without a step"):
        trainer.launch(Phase("probe", tmp_path, tmp_path, tmp_path, 4, 4, 8, 4))
    with pytest.raises(CheckpointError, match="holds no file"):
        trainer.saved(a_phase, 8)


# -- provenance --------------------------------------------------------------------------------------


def test_what_the_script_says_of_itself_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    trainer, a_phase = CommandTrainer(case(tmp_path, world_size=2), "cpu"), one_phase(tmp_path)
    a_phase.folder.mkdir(parents=True)
    (a_phase.folder / "provenance.json").write_text('{"layout": "DP2", "nested": {}, "mine": 1}')
    found = trainer.provenance(a_phase)
    assert (found["trainer"], found["layout"], found["mine"]) == ("command", "DP2", 1)
    assert "nested" not in found
    for broken in ("{", "[]"):
        (a_phase.folder / "provenance.json").write_text(broken)
        with pytest.raises(CaseError, match=r"provenance\.json"):
            trainer.provenance(a_phase)


# -- dry run -----------------------------------------------------------------------------------------


def test_a_dry_run_can_be_pasted_and_starts_the_same(tmp_path: Path) -> None:
    script = (
        "import json, os, sys\n"
        "print(json.dumps([sys.argv[1:], os.getcwd(), os.environ['SAID'], os.environ['PATH']]))\n"
    )
    a_case = case(tmp_path, env={"SAID": "it's \"this\" $HOME"}, command={
        "train": ["python", "-c", script, "--stop", "${EXIT_ITERS}", "--empty", "", "two words"],
        "resume": ["python", "-c", script, "--load", "${CHECKPOINT_LOAD_PATH}"],
    })  # fmt: skip
    # ``$HOME`` in a case is replaced like any other name.
    trainer, folder = CommandTrainer(a_case, "cpu"), ResultsFolder(tmp_path / "results")
    planned = phases(trainer, folder)
    assert [(phase.name, phase.start, phase.stop) for phase in planned] == [
        ("continuous", 0, 8), ("interrupted", 0, 4), ("resumed", 4, 8),
    ]  # fmt: skip
    text = dry_run(trainer, planned)
    assert not (tmp_path / "results").exists()
    pasted = subprocess.run(["bash", "-s"], input=text, capture_output=True, text=True, check=True)
    assert not pasted.stderr
    said, path = a_case.env_vars["SAID"].replace("$HOME", os.environ["HOME"]), os.environ["PATH"]
    common = [str(a_case.directory), said, f"{Path(sys.executable).parent}{os.pathsep}{path}"]
    assert [json.loads(line) for line in pasted.stdout.splitlines()] == [
        [["--stop", "8", "--empty", "", "two words"], *common],
        [["--stop", "4", "--empty", "", "two words"], *common],
        [["--load", str(tmp_path / "results" / "checkpoints" / "resumed-from")], *common],
    ]


# -- the worked examples -----------------------------------------------------------------------------


def test_the_documents_show_the_examples_as_they_are() -> None:
    text = (EXAMPLES.parent / "command-trainer.md").read_text()
    for name in ("plain/tiny_lm/train.py", "plain/tiny_lm/model_config.yaml"):
        assert (EXAMPLES / name).read_text() in text, name
    assert len((EXAMPLES / "plain/tiny_lm/model_config.yaml").read_text().splitlines()) == 10


def example(tmp_path: Path, source: Path) -> Case:
    folder = tmp_path / "cases" / "examples" / "tiny"
    shutil.copytree(source, folder)
    return load_case(folder)


@pytest.mark.torch
def test_the_plain_example_resumes(tmp_path: Path) -> None:
    # tests/test_own_repository.py takes a line out of it.
    assert not failing(run(tmp_path, example(tmp_path, EXAMPLES / "plain/tiny_lm"), golden_update=True))


@pytest.mark.torch
@pytest.mark.skipif(find_spec("pytorch_lightning") is None, reason="pytorch-lightning is not installed")
def test_a_script_of_lightning_is_ended_at_its_checkpoint_and_resumes(tmp_path: Path) -> None:
    verdict = run(tmp_path, example(tmp_path, TESTS / "stand_ins/tiny_lightning"))
    assert not failing(verdict)
    assert any(check.metric == "loss" and check.against == "continuous" for check in verdict.checks)


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (("epoch=1-step=20.ckpt", "last.ckpt"), "/epoch=1-step=20.ckpt"),
        (("checkpoint-20/model", "checkpoint-40/model"), "/checkpoint-20"),
        (("model_20.pt", "optim_20.pt"), ""),
        (("last.pt",), ""),
    ],
)
def test_the_checkpoint_to_load_is_that_of_k_or_the_folder_where_it_is_several_files(
    names: tuple[str, ...], given: str, tmp_path: Path
) -> None:
    load = tmp_path / "load"
    for name in names:
        (load / name).parent.mkdir(parents=True, exist_ok=True)
        (load / name).touch()
    resume = ["python", "train.py", "${CHECKPOINT_TO_LOAD}"]
    a_case = case(tmp_path, command={"train": ["python", "train.py"], "resume": resume})
    phase = Phase("resumed", tmp_path, tmp_path / "save", load, 20, 40, 40, 20)
    assert CommandTrainer(a_case, "cpu").launch(phase).argv[2] == f"{load}{given}"
