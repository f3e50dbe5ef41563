"""A resumed phase that cannot load its checkpoint has failed to resume; any other end is a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cases import load_case
from harness.diagnosis.loading import could_not_load, said_unable
from harness.errors import Frame, Raised
from harness.matrix import Cell
from harness.protocol.run import run_cell
from harness.report.terminal import render
from harness.verdict import Verdict
from tests.plain_case import write_case

LOAD = "/results/checkpoints/resumed-from"


def frame(source: str, function: str = "<module>", file: str = "train.py") -> Frame:
    return Frame(file, 7, function, source)


def raised(kind: str, message: str, *frames: Frame, cause: Raised | None = None) -> Raised:
    return Raised(kind, message, frames, cause, "caused by" if cause else "")


MEGATRON = (
    frame("model, optimizer, opt_param_scheduler = setup_model_and_optimizer(", "pretrain", "training.py"),
    frame("args.iteration, args.flops = load_checkpoint(", "setup_model_and_optimizer", "training.py"),
)


@pytest.mark.parametrize(
    ("error", "component"),
    [
        (
            raised(
                "ValueError",
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's",
                *MEGATRON,
                frame("optimizer.load_state_dict(state_dict['optimizer'])", "load_checkpoint"),
                frame("raise ValueError(", "load_state_dict", "/x/site-packages/torch/optim/optimizer.py"),
            ),
            "optimizer",
        ),
        (
            raised(
                "AssertionError",
                "OptimizerParamScheduler: class input value 1 and checkpointvalue 2 do not match",
                *MEGATRON,
                frame("opt_param_scheduler.load_state_dict(state_dict['lr'])", "load_checkpoint"),
            ),
            "lr-schedule",
        ),
        (raised("KeyError", "'s'", frame('scheduler.load_state_dict(s["s"])')), "lr-schedule"),
        (raised("KeyError", "'sched'", frame("steps = state['sched']", "load")), "lr-schedule"),
        (raised("TypeError", "RNG state must be a ByteTensor", frame("set_rng_state(s)", "load")), "rng"),
        (raised("RuntimeError", "wrong size", frame('torch.set_rng_state(state["a"])', "load")), "rng"),
        (raised("KeyError", "'iteration'", frame('self.iteration = s["iteration"]', "load")), "iteration"),
        (raised("KeyError", "'a'", frame("scaler.load_state_dict(s['a'])", "resume")), "grad-scaler"),
        (raised("KeyError", "'a'", frame("sampler.load_state_dict(s['a'])")), "data-order"),
        (
            raised(
                "RuntimeError",
                'Error(s) in loading state_dict for GPT: Missing key(s) in state_dict: "optimizer.weight"',
                frame('model.load_state_dict(s["model"])', "main"),
            ),
            "weights",
        ),
        (
            raised(
                "RuntimeError",
                "PytorchStreamReader failed reading zip archive: failed finding central directory",
                frame("optimizer.load_state_dict(torch.load(path))", "main"),
            ),
            "checkpoint",
        ),
        (raised("FileNotFoundError", f"No such file: '{LOAD}/a.pt'", frame("open(path)")), "checkpoint"),
        (raised("RuntimeError", "odd", frame("x = 1", "load_checkpoint")), "checkpoint"),
        (
            raised(
                "RuntimeError", "the run cannot go on", frame("go()"),
                cause=raised("KeyError", "'optimizer'", frame('optimizer.load_state_dict(s["optimizer"])')),
            ),
            "optimizer",
        ),
    ],
)  # fmt: skip
def test_what_could_not_be_loaded_is_named_where_it_is_said(error: Raised, component: str) -> None:
    assert could_not_load(error, LOAD) == component


@pytest.mark.parametrize(
    "error",
    [
        None,
        raised("torch.OutOfMemoryError", "CUDA out of memory.", frame("model.load_state_dict(s)", "load")),
        raised("RuntimeError", "CUDA error: out of memory", frame("torch.load(path)", "load_checkpoint")),
        raised("RuntimeError", "No CUDA GPUs are available", frame("torch.load(path)", "load_checkpoint")),
        raised("OSError", "[Errno 28] No space left on device", frame("torch.load(path)", "load_checkpoint")),
        raised("OSError", "[Errno 98] Address already in use", frame("dist.init_process_group()")),
        raised("ModuleNotFoundError", "No module named 'apex'", frame("import apex", "load_model")),
        raised("KeyboardInterrupt", "", frame("torch.load(path)", "load_checkpoint")),
        raised("ValueError", "loss is not finite", frame("train_step(model)", "train")),
        raised("KeyError", "'text'", frame("data = load_dataset(path)", "main")),
        raised("FileNotFoundError", "No such file: 'data.json'", frame("json.load(open(path))", "main")),
        raised("ValueError", "boom", frame("trainer.train(resume_from_checkpoint=args.load)", "main")),
    ],
)  # fmt: skip
def test_what_ends_for_another_reason_is_no_failed_load(error: Raised | None) -> None:
    assert could_not_load(error, LOAD) is None


def test_a_program_may_say_that_it_cannot_load_and_end() -> None:
    said = "Unable to load rng state from checkpoint /x/iter_5. Specify --no-load-rng, exiting"
    assert said_unable(said) == "rng"
    assert said_unable("could not load checkpoint /x") == "checkpoint"
    assert said_unable("Failed to load image Python extension: libc10.so") is None
    assert said_unable("unable to load the checkpoint: out of memory") is None


# -- the verdict -------------------------------------------------------------------------------


def verdict(tmp_path: Path, old: str, new: str) -> Verdict:
    """Of the plain script, changed."""
    folder = tmp_path / "test_cases" / "own" / "plain_script"
    if not folder.exists():
        write_case(folder)
    script = folder / "plain_script.py"
    text = script.read_text()
    assert old in text
    script.write_text(text.replace(old, new))
    return run_cell(
        Cell("cpu", "dev", "plain_script"),
        cases=tmp_path / "test_cases",
        goldens=tmp_path / "goldens",
        results=tmp_path / "results",
        case=load_case(folder),
    )


STATE = '    (weight,), (momentum,) = state["model"].values()'


@pytest.mark.parametrize(
    ("fault", "component", "says"),
    [
        ('saved["optimizer"]["scheduler"]', "lr-schedule", "KeyError: 'scheduler'"),
        ("open(args.load / 'no.pt')", "checkpoint", "FileNotFoundError"),
        ("print('could not load the optimizer state'); sys.exit(1)", "optimizer", "exited with status 1"),
        ("print('unable to load rng state, exiting'); sys.exit()", "rng", "unable to load rng state"),
    ],
)
def test_a_resumed_phase_that_cannot_load_is_a_failed_resume(
    tmp_path: Path, fault: str, component: str, says: str
) -> None:
    faulty = f"    if args.load:\n        def load_state(): {fault}\n        load_state()\n{STATE}"
    found = verdict(tmp_path, STATE, faulty)
    assert (found.status, found.exit_code) == ("failed", 1)
    (check,) = [check for check in found.failures if check.against == "state"]
    assert (check.name, check.passed) == ("resume: load iteration 5", False)
    assert says in check.message
    assert found.diagnosis is not None
    assert found.diagnosis.component == component
    assert says in found.diagnosis.evidence[0]
    assert "the checkpoint could not be loaded" in found.message
    assert str(tmp_path) not in check.message
    assert render(found).count(says) == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL, perhaps out of memory"),
        ("raise MemoryError()", "failed: MemoryError"),
        ("raise OSError(98, 'Address already in use')", "Address already in use"),
        ("sys.exit(7)", "exited with status 7"),
    ],
)
def test_a_resumed_phase_that_ends_for_another_reason_has_crashed(
    tmp_path: Path, fault: str, says: str
) -> None:
    faulty = f"    if args.load:\n        def load_state(): {fault}\n        load_state()\n{STATE}"
    found = verdict(tmp_path, STATE, faulty)
    assert (found.status, found.exit_code) == ("error", 4)
    (check,) = [check for check in found.failures if check.against == "continuous"]
    assert check.name == "resumed: runs to its end"
    assert says in check.message
    assert "its log: resumed/logs/trainer.log" in check.message
    assert found.diagnosis is not None
    assert found.diagnosis.component == "crash"
    assert says in found.diagnosis.evidence[0]
    assert says in found.message
    assert not any(check.name.startswith("resume: load") for check in found.checks)


def test_one_that_had_trained_a_step_has_crashed(tmp_path: Path) -> None:
    step = "            if args.pause:"
    faulty = (
        "            metrics.flush()\n            def load_state(): raise KeyError('optimizer')\n"
        f"            if args.load and i == 7: load_state()\n{step}"
    )
    found = verdict(tmp_path, step, faulty)
    assert (found.status, found.exit_code) == ("error", 4)
    assert found.diagnosis is not None
    assert "KeyError: 'optimizer'" in found.diagnosis.evidence[0]


def test_where_the_uninterrupted_run_dies_the_same_way_it_is_a_crash(tmp_path: Path) -> None:
    found = verdict(
        tmp_path, STATE, f"    def load_state(): raise KeyError('optimizer')\n    load_state()\n{STATE}"
    )
    assert found.status == "error"
    assert [check.name for check in found.failures] == ["continuous: runs to its end"]
