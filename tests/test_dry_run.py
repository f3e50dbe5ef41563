"""``harness run --dry-run`` through the real command line: both heart cases, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CASES = TESTS.parent / "test_cases"
HEART = [
    "gpt3_mcore_te_tp1_pp4_vp1_resume_torch_decoupled_lr",
    "gpt3_moe_mcore_te_tp4_ep2_etp2_pp2_resume_torch_dist_dist_optimizer",
]


def harness(*words: str | Path, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "harness", "run", *map(str, words), "--dry-run"],
        cwd=folder, env={**kept, "PYTHONPATH": str(TESTS.parent), **env}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "megatron-lm"
    folder.mkdir()
    (folder / "pretrain_gpt.py").touch()
    return folder


@pytest.mark.parametrize("name", HEART)
def test_a_heart_case_is_printed_for_h100_without_one(name: str, checkout: Path, tmp_path: Path) -> None:
    expected = (TESTS / "data" / "megatron" / f"{name}.txt").read_text()
    done = harness(
        name, "--cases", CASES, "--hardware", "h100", "--megatron-lm", "megatron-lm",
        folder=tmp_path, DATA_PATH="/mnt/artifacts", DATA_CACHE_PATH="/cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = f"{tmp_path}/results/h100/dev/{name}"
    text = done.stdout.replace(f"{results}/checkpoints", "/results/checkpoints").replace(results, "/results")
    printed = text[text.index("pretrain_gpt.py ") :].partition("\n\n")[0].replace(" \\\n ", "")
    assert printed.split()[1:] == expected.split()
    assert "# resumed: iterations 51 to 100" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["megatron-lm"]


def test_the_golden_that_is_going_to_be_compared_with_is_named(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "goldens" / HEART[0]
    folder.mkdir(parents=True)
    content = {"lm loss": {"start_step": 1, "end_step": 1, "step_interval": 1, "values": {"1": 10.9}}}

    def said() -> str:
        words = (
            HEART[0],
            "--cases",
            CASES,
            "--hardware",
            "h100",
            "--track",
            "lts",
            "--megatron-lm",
            checkout,
        )
        done = harness(*words, folder=tmp_path, DATA_PATH="/mnt/artifacts")
        return next(line for line in done.stdout.splitlines() if line.startswith("# golden"))

    assert said() == "# golden: none"
    (folder / "golden_values_lts.json").write_text(json.dumps(content))
    assert (
        said() == f"# golden: goldens/{HEART[0]}/golden_values_lts.json (a fallback: compared by tolerance)"
    )
    (folder / "golden_values_lts_dgx_h100.json").write_text(json.dumps(content))
    assert said() == f"# golden: goldens/{HEART[0]}/golden_values_lts_dgx_h100.json"


def test_the_native_trainers_ranks_are_shown_as_what_they_are(tmp_path: Path) -> None:
    done = harness(HEART[0], "--cases", CASES, "--hardware", "cpu", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 ranks, forked after one import, call harness.trainers.native.main:run with:" in done.stdout
    assert "#   --pipeline-model-parallel-size 4" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--hardware", "h100"], "no checkout of Megatron-LM is named"),
        (["--hardware", "h100", "--megatron-lm", "megatron-lm"], "DATA_PATH has no value here"),
        (["--hardware", "h900"], "hardware 'h900'"),
        (["--track", "no-such"], "track 'no-such'"),
    ],
)
def test_what_cannot_be_started_is_not_printed_either(
    words: list[str], expected: str, checkout: Path, tmp_path: Path
) -> None:
    done = harness(HEART[0], "--cases", CASES, *words, folder=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "# continuous" not in done.stdout


SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef",
    "HF_TOKEN": "of-the-hub",
    "AWS_SECRET_ACCESS_KEY": "wJalr+XUtn/FEMI",
    "MY_PASSWORD": "correct horse",
    "DATABASE": "postgres://me:tr0ub4dor@db.example/runs",
    "MIRROR": "https://only-a-token@git.example/x",
}


def test_no_secret_of_the_environment_is_printed(tmp_path: Path) -> None:
    for trainer in ("command", "megatron"):
        folder = tmp_path / "cases" / "gpt" / trainer
        folder.mkdir(parents=True)
        (folder / "model_config.yaml").write_text(f"""\
ENV_VARS:
  OURS: ${{HF_TOKEN}}
  BASE: ${{DATABASE}}
  PLAIN: ${{MIRROR}}
  TOKENIZERS_PARALLELISM: "false"
MODEL_ARGS:
  --train-iters: 40
  --save-interval: 20
  --wandb-key: ${{WANDB_API_KEY}}
  --store: s3://${{AWS_SECRET_ACCESS_KEY}}
  --moe-token-dispatcher-type: alltoall
HARNESS:
  trainer: {trainer}
  world_size: 1
  command:
    train:
      [python, t.py, --api-key, literal-one, --password=literal-two, "x${{MY_PASSWORD}}y", "${{DATABASE}}"]
""")
        (folder / "pretrain_gpt.py").touch()
        words = (f"cases/gpt/{trainer}", "--hardware", "cpu", "--megatron-lm", f"cases/gpt/{trainer}")
        done = harness(*words, folder=tmp_path, **SECRETS)
        assert done.returncode == 0, done.stderr
        printed = done.stdout + done.stderr
        for secret in (*SECRETS.values(), "tr0ub4dor", "only-a-token", "literal-one", "literal-two"):
            assert secret not in printed, secret
        assert "TOKENIZERS_PARALLELISM=false" in printed
        assert "OURS=***" in printed
        assert "# *** stands for a secret" in printed
        if trainer == "megatron":
            assert "--moe-token-dispatcher-type alltoall" in printed
            assert "WANDB_API_KEY=*** " in printed
        else:
            assert "--api-key ***" in printed
            assert "postgres://me:***@db.example/runs" in printed


def test_a_dry_run_without_secrets_says_nothing_of_them(tmp_path: Path) -> None:
    done = harness(HEART[0], "--cases", CASES, "--hardware", "cpu", folder=tmp_path)
    assert "***" not in done.stdout
