"""The environment chooses how closely a golden is compared; another subject is a finding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import goldens
from harness.cases.case import load_case
from harness.commands.cli import main
from harness.errors import GoldenError
from harness.goldens.fingerprints import apart, kind_of
from harness.goldens.subjects import subject_apart, subject_of
from harness.metrics import Series
from harness.verdict import Verdict
from harness.verdict.reading import read_verdict

ROOT = Path(__file__).parents[1]
KINDS = {
    "environment": [
        "torch", "device", "cpu_capability", "aten_cpu_capability", "mkl_cbwr", "cublas_workspace", "threads",
        "platform", "transformer_engine", "nccl_algo", "nvte_allow_nondeterministic_algo",
        "cublas_workspace_config", "numpy", "numpy_version", "CUDA version", "flash-attn", "OMP_NUM_THREADS",
    ],
    "version": ["trainer_version", "commit", "git_sha"],
    "cost": ["torch_build"],
    "circumstance": ["hostname", "start_time", "pid", "slurm_job_id"],
    "subject": [
        "trainer", "precision", "layout", "ckpt_format", "deterministic", "deterministic_algorithms", "data",
        "seed", "model", "tokenizer", "num_layers", "nodes",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("key", "kind"), [(key, kind) for kind, keys in KINDS.items() for key in keys])
def test_a_key_of_a_fingerprint_is_environment_or_under_test(key: str, kind: str) -> None:
    assert kind_of(key) == kind


def test_fingerprints_are_told_apart_by_what_their_keys_are() -> None:
    there = {
        "torch": "2.8.0",
        "precision": "fp32",
        "trainer_version": "1",
        "host": "a",
        "same": 1,
        "data": "v2",
    }
    here = {"torch": "2.13.0", "precision": "bf16", "trainer_version": "2", "host": "b", "same": 1, "new": 3}
    found = apart(there, here)
    assert found.environment == ("torch '2.8.0' there, '2.13.0' here",)
    assert found.versions == ("trainer_version '1' there, '2' here",)
    assert found.subject == (
        "data: recorded with v2, run without", "precision: recorded with fp32, run with bf16",
    )  # fmt: skip


def test_the_goldens_that_are_here_have_a_fingerprint_of_known_keys() -> None:
    for side in sorted((ROOT / "goldens").rglob("*.provenance.json")):
        known = json.loads(side.read_text())
        if "source" in known:  # imported: nobody knows what it was recorded on
            continue
        found = known["fingerprint"]
        assert {key for key in found if kind_of(key) == "subject"} == {
            "trainer", "precision", "layout", "ckpt_format", "deterministic_algorithms", "deterministic",
        }  # fmt: skip


def case(folder: Path, **keys: Any) -> Path:
    content = {
        "ENV_VARS": {"NCCL_ALGO": "Ring", "NCCL_DEBUG": "INFO", "MY_TOKEN": "0123456789"},
        "MODEL_ARGS": {
            "--train-iters": 20, "--save-interval": 10, "--lr": 0.005, "--bf16": True, "--seed": "${SEED}",
            "--data-path": "${DATA_PATH}/text", "--save": "${CHECKPOINT_SAVE_PATH}", "--log-interval": 1,
            "--api-key": "secret", "--hub": "https://me:secret@hub/x", "--blend": ["0.3", "a", "0.7", "b"],
        },
        "HARNESS": {"trainer": "megatron"},
    }  # fmt: skip
    path = folder / "gpt" / "walk"
    path.mkdir(parents=True, exist_ok=True)
    (path / "model_config.yaml").write_text(yaml.safe_dump({**content, **keys}))
    return path


def test_what_decides_numbers_is_recorded_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEED", "7")
    monkeypatch.setenv("DATA_PATH", "/mnt/somewhere")
    assert subject_of(load_case(case(tmp_path)), "h100") == {
        "arguments": {
            "--bf16": True, "--blend": ["0.3", "a", "0.7", "b"], "--data-path": "${DATA_PATH}/text",
            "--hub": "https://me:***@hub/x", "--lr": "0.005", "--seed": "7", "--train-iters": "20",
        },
        "variables": {"NCCL_ALGO": "Ring"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["python", "train.py", "--lr", "0.1", "--save", "${CHECKPOINT_SAVE_PATH}"], {"--lr": "0.1"}),
        (["python", "-u", "train.py", "--lr=0.1", "--fast"], {"--lr": "0.1", "--fast": True}),
        (["python", "-m", "pkg.train", "optim.lr=0.1", "x"], {"optim.lr": "0.1", "words": "x"}),
        (["torchrun", "--nproc_per_node", "2", "t.py", "--x", "-1", "a"],
         {"--nproc_per_node": "2", "--x": ["-1", "a"]}),
        (["./run", "--out", "o", "--stop", "${EXIT_ITERS}", "--log-every", "5", "--hf-token", "t"], {}),
    ],
)  # fmt: skip
def test_of_a_command_its_options_are_recorded_and_not_its_script(
    tmp_path: Path, words: list[str], arguments: dict[str, Any]
) -> None:
    about = {"trainer": "command", "command": {"train": words}}
    found = subject_of(load_case(case(tmp_path, HARNESS=about)), "cpu")["arguments"]
    assert found == {"--train-iters": "20"} | arguments


def test_another_argument_is_told_with_both_values_and_another_spelling_is_none() -> None:
    there = {"arguments": {"--lr": "0.005", "--a": "1", "--flag": True, "--save": "x", "--blend": ["1", "b"]}}
    here = {
        "arguments": {"--lr": "5e-3", "--b": "2", "--flag": "true", "--save": "y", "--blend": ["1.0", "b"]}
    }
    assert subject_apart(there, here) == (
        "--a: recorded with 1, run without", "--b: recorded without, run with 2",
    )  # fmt: skip
    assert subject_apart({}, here) == ()
    here["arguments"]["--lr"] = "0.01"
    assert "--lr: recorded with 0.005, run with 0.01" in subject_apart(there, here)


def test_a_subject_that_is_none_is_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "golden_values_dev_cpu.json"
    series = {"loss": Series.of("loss", [1, 2], [1.0, 2.0])}
    for subject, where in (([1], "subject: found list"), ({"arguments": 3}, "subject: arguments: found 3")):
        goldens.write(path, series, {"subject": subject})
        with pytest.raises(GoldenError, match=where):
            goldens.read(path)


# -- the commands ------------------------------------------------------------------------------


def test_list_and_lint_tell_a_golden_without_state_digests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "goldens" / "walk" / "golden_values_dev_cpu.json"
    about = goldens.provenance_of({"device": "a CPU"}, {})
    goldens.write(path, {"loss": Series.of("loss", range(1, 21), [1.0] * 20)}, about)
    folders = ["--cases", str(case(tmp_path / "cases").parents[1])]
    assert main(["goldens", "list", "--json", "--goldens", str(tmp_path / "goldens"), *folders]) == 0
    rows = {row["cell"]: row["compared"] for row in json.loads(capsys.readouterr().out)}
    assert rows["cpu/dev/walk"] == "curves"
    assert main(["goldens", "lint", "--json", str(tmp_path / "goldens"), *folders]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [(one["kind"], one["key"]) for one in found] == [("no-state", "state")]


def test_diff_says_that_two_goldens_are_of_different_trainings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name, precision, lr in (("a", "fp32", "0.1"), ("b", "bf16", "0.2")):
        paths.append(tmp_path / name / "golden_values_dev_cpu.json")
        subject = {"arguments": {"--lr": lr}, "variables": {}}
        about = goldens.provenance_of({"precision": precision}, {"weights": "0"}, subject=subject)
        goldens.write(paths[-1], {"loss": Series.of("loss", [1, 2], [1.0, 2.0])}, about)
    words = ["goldens", "diff", *map(str, paths)]
    assert main(words) == 0  # their values are the same
    out = capsys.readouterr().out
    assert "precision: recorded with fp32, run with bf16" in out
    assert "--lr: recorded with 0.1, run with 0.2" in out
    assert main([*words, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["subject"]) == 2
    assert main(["goldens", "show", str(paths[0])]) == 0
    assert "subject: arguments: --lr: 0.1" in capsys.readouterr().out


# -- whole cells -------------------------------------------------------------------------------

SCRIPT = """
import argparse, json, pathlib
p = argparse.ArgumentParser()
for name in ("--out", "--save", "--load", "--lr", "--stop"):
    p.add_argument(name)
a = p.parse_args()
out, save = pathlib.Path(a.out), pathlib.Path(a.save)
w, first = 1.0, 1
if a.load:
    held = json.loads(sorted(pathlib.Path(a.load).glob("step_*.json"))[-1].read_text())
    w, first = held["model"]["w"], held["step"] + 1
about = json.loads(pathlib.Path("about.json").read_text())
(out / "provenance.json").write_text(json.dumps(about))
with open(out / "metrics.jsonl", "a") as log:
    for step in range(first, int(a.stop) + 1):
        w *= 1 - float(a.lr)
        log.write(json.dumps({"step": step, "loss": w, "big": (1 << 62) + step}) + chr(10))
        if step % 4 == 0:
            state = {"step": step, "model": {"w": w}}
            (save / f"step_{step:06d}.json").write_text(json.dumps(state))
"""
ARGUMENTS = ["--out", "${OUTPUT_PATH}", "--save", "${CHECKPOINT_SAVE_PATH}", "--stop", "${EXIT_ITERS}"]


class Place:
    """A script of eight steps with its golden, and the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.case = folder, folder / "cases" / "mine" / "walk"
        self.case.mkdir(parents=True)
        (self.case / "train.py").write_text(SCRIPT)
        self.about(precision="fp32", data="v1", numpy="2.0", version="1", host="a")
        self.write()

    def about(self, **known: Any) -> None:
        (self.case / "about.json").write_text(json.dumps(known))

    def write(self, lr: str = "0.1", **keys: Any) -> None:
        train = ["python", "train.py", "--lr", lr, *ARGUMENTS]
        command = {"train": train, "resume": [*train, "--load", "${CHECKPOINT_LOAD_PATH}"]}
        content = {
            "MODEL_ARGS": {"--train-iters": 8, "--save-interval": 4},
            "HARNESS": {"trainer": "command", "command": command},
        }
        (self.case / "model_config.yaml").write_text(yaml.safe_dump({**content, **keys}))

    @property
    def golden(self) -> Path:
        return self.folder / "goldens" / "walk" / "golden_values_dev_cpu.json"

    def edit(self, change: Callable[[dict[str, Any]], object], path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def run(self, *words: str) -> tuple[int, Verdict]:
        folders = [f"--{name}={self.folder / name}" for name in ("goldens", "results")]
        code = main(["run", str(self.case), "--hardware", "cpu", "--track", "dev", *folders, *words])
        return code, read_verdict(self.folder / "results" / "cpu" / "dev" / "walk" / "verdict.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = Place(tmp_path_factory.mktemp("made"))
    assert place.run("--golden-update")[0] == 1
    return place.folder


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Place:
    shutil.rmtree(tmp_path)
    found = Place(tmp_path)
    shutil.copytree(made / "goldens", tmp_path / "goldens")
    return found


def test_the_same_subject_is_compared_exactly_and_no_check_is_made_of_it(place: Place) -> None:
    code, verdict = place.run()
    assert code == 0
    assert verdict.provenance["protocol"] == "fast"
    assert verdict.provenance["compared"] == "exact"
    assert verdict.provenance["subject"]["arguments"] == {"--lr": "0.1", "--train-iters": "8"}
    assert not [check for check in verdict.checks if "subject" in check.name]


@pytest.mark.parametrize("protocol", ["auto", "full", "fast"])
def test_another_precision_is_red_by_a_check_of_its_own_and_curves_stay_exact(
    place: Place, protocol: str
) -> None:
    place.about(precision="bf16", data="v1", numpy="2.0", version="1", host="a")
    code, verdict = place.run("--protocol", protocol)
    assert code == 1
    (failed,) = verdict.failures
    assert (failed.name, failed.kind, failed.against) == ("golden: subject", "present", "golden")
    assert "precision: recorded with fp32, run with bf16" in failed.message
    assert "record it anew if you mean it" in failed.message
    assert "--golden-update" in failed.message
    assert verdict.provenance["compared"] == "exact"


def test_another_argument_is_told_before_the_curve_that_it_changes(place: Place) -> None:
    place.write(lr="0.2")
    code, verdict = place.run()
    assert code == 1
    failed = [check for check in verdict.failures if check.against == "golden"]
    assert failed[0].name == "golden: subject"
    assert "--lr: recorded with 0.1, run with 0.2" in failed[0].message
    assert {check.kind for check in failed[1:] if check.metric == "loss"} == {"exact"}


def test_a_variable_that_the_case_sets_is_its_subject(place: Place) -> None:
    place.write(ENV_VARS={"NVTE_FUSED_ATTN": "0"})
    code, verdict = place.run()
    assert code == 1
    assert "NVTE_FUSED_ATTN: recorded without, run with 0" in verdict.failures[0].message


def test_another_version_is_noted_and_changes_nothing(place: Place) -> None:
    place.about(precision="fp32", data="v1", numpy="2.0", version="2", host="b", new="yes")
    code, verdict = place.run()
    assert code == 0
    assert verdict.provenance["compared"] == "exact"
    assert "version '1' there, '2' here" in verdict.provenance["golden"]
    place.edit(lambda golden: golden["loss"]["values"].update({"6": 0.5}), place.golden)
    code, verdict = place.run()
    assert code == 1
    assert ("golden: loss", "exact") in {(check.name, check.kind) for check in verdict.failures}


def test_memory_is_judged_with_the_build_of_torch_that_the_golden_has_and_shown_with_another(
    place: Place,
) -> None:
    known = {"precision": "fp32", "data": "v1", "numpy": "2.0", "version": "1", "host": "a"}
    script = place.case / "train.py"

    def run(memory: str, build: str, *words: str) -> tuple[int, Verdict]:
        logged = f'"mem-allocated-bytes": {memory}, "loss": w'
        script.write_text(SCRIPT.replace('"loss": w', logged))
        place.about(**known, torch_build=build)
        return place.run(*words)

    run("3e8", "cpu", "--golden-update")
    code, verdict = run("5e8", "cpu")
    assert code == 1
    assert {check.kind for check in verdict.failures} == {"upper-bound"}
    code, verdict = run("5e8", "cu130")
    assert (code, verdict.provenance["compared"]) == (0, "exact")
    assert "torch_build 'cpu' there, 'cu130' here" in verdict.provenance["golden"]
    assert [check for check in verdict.checks if "not enforced here" in check.message]

    forget = lambda about: about["fingerprint"].pop("torch_build")
    place.edit(forget, goldens.side_file(place.golden))
    code, verdict = run("5e8", "cpu")
    assert (code, verdict.provenance["compared"]) == (0, "exact")
    assert "torch_build" not in verdict.provenance["golden"]


def test_another_library_chooses_the_tolerance_and_another_subject_is_red_there_too(place: Place) -> None:
    place.about(precision="fp32", data="v1", numpy="2.1", version="1", host="a")
    code, verdict = place.run()
    assert (code, verdict.provenance["compared"]) == (0, "tolerance")
    place.about(precision="fp32", data="v2", numpy="2.1", version="1", host="a")
    code, verdict = place.run()
    assert code == 1
    assert "data: recorded with v1, run with v2" in verdict.failures[0].message


def test_a_golden_without_state_digests_is_not_taken_for_the_state(place: Place) -> None:
    side = goldens.side_file(place.golden)
    place.edit(lambda about: about.update(state={}, values={}), side)
    code, verdict = place.run()
    assert (code, verdict.provenance["protocol"]) == (0, "full")
    assert verdict.provenance["compared"] == "exact"
    assert "no state digests" in verdict.provenance["golden"]
    assert any(check.against == "state" for check in verdict.checks)
    code, verdict = place.run("--protocol", "fast")
    assert code == 0
    assert any(check.against == "state" for check in verdict.checks)


def test_whole_numbers_that_differ_after_the_resume_are_red(place: Place) -> None:
    script = place.case / "train.py"
    script.write_text(script.read_text().replace("+ step}", "+ step + (100 if a.load else 0)}"))
    code, verdict = place.run("--protocol", "full")
    assert code == 1
    assert {check.metric for check in verdict.failures} == {"big"}


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("float('inf') if step < 3 else w", "`loss` is inf at step 1 and 1 more, expected a number"),
        ("float('nan') if step == 2 else w", "`loss` is nan at step 2"),
    ],
)
def test_what_no_golden_may_hold_is_a_failed_check_and_no_crash(place: Place, odd: str, said: str) -> None:
    script = place.case / "train.py"
    script.write_text(script.read_text().replace('"loss": w', f'"loss": {odd}'))
    code, verdict = place.run("--golden-update")
    assert (code, verdict.status) == (1, "failed")
    (failed,) = verdict.failures
    assert failed.name == "golden: recorded"
    assert f"not recorded: {said}" in failed.message
    assert "METRICS" in failed.message
    place.write(METRICS=["big"])
    code, verdict = place.run("--golden-update")
    assert "was recorded" in verdict.failures[0].message
    code, verdict = place.run()
    assert code == 0


def test_approving_another_training_says_so_and_the_next_run_is_green(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write(lr="0.2")
    place.about(precision="bf16", data="v1", numpy="2.0", version="1", host="a")
    assert place.run("--protocol", "full")[0] == 1
    capsys.readouterr()
    folders = [f"--{name}={place.folder / name}" for name in ("goldens", "cases")]
    assert main(["goldens", "approve", str(place.folder / "results"), *folders]) == 0
    out = capsys.readouterr().out
    assert "another subject: --lr: recorded with 0.1, run with 0.2" in out
    assert "another subject: precision: recorded with fp32, run with bf16" in out
    code, verdict = place.run()
    assert (code, verdict.provenance["compared"]) == (0, "exact")


def test_repeats_that_are_infinite_where_nothing_is_compared_are_recorded(place: Place) -> None:
    script = place.case / "train.py"
    script.write_text(script.read_text().replace('"loss": w', '"loss": float("inf") if step < 3 else w'))
    place.write(METRICS=["big"])
    code, verdict = place.run("--golden-update", "--repeats", "3")
    assert (code, verdict.status) == (1, "failed")
    assert "was recorded" in verdict.failures[0].message
    assert list(goldens.read(place.golden).statistics) == ["big"]
    skip = 'if not ("repeat-3" in a.out and step == 8): log.write('
    script.write_text(script.read_text().replace("log.write(", skip))
    code, verdict = place.run("--golden-update", "--repeats", "3")
    assert (code, verdict.status) == (1, "failed")
    assert "not recorded: repeats of big: found other steps" in verdict.failures[0].message
