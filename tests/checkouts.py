"""A tree like Megatron-LM's ``tests/functional_tests/test_cases``, with everything odd that is found there.

Names, sizes and values are made up; the kinds and their numbers are those of the real one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

N = 20
CASES = {
    "regular": 142, "ckpt-resume": 93, "frozen-resume": 7, "frozen-start": 72, "release": 18,
    "checkpoint-consistency": 1,
}  # fmt: skip
GOLDENS = 915
FAMILIES = ("gpt", "moe", "bert", "t5", "hybrid", "multimodal-llava")
LONG = "gpt3_" + "x" * 91 + "y"  # 97 characters
#: File names of goldens by what is special about them; every case has some of each.
SCHEMES = (
    "golden_values_dev_dgx_h100.json",
    "golden_values_lts_dgx_a100.json",
    "golden_values_dev_dgx_a100.json",
    "golden_values_lts.json",
    "golden_values_dev.json",
    "golden_values.json",
    "golden_values_dev_dgx_gb200.json",
    "golden_values_dev_dgxh100_coreweave.json",
    "golden_values_dev_dgxh100_eos.json",
    "golden_values_lts_dgxa100_dracooci-ord.json",
    "golden_values_lts_dgxa100_dracooci.json",
    "golden_values_dev_dgx_h100_2nd.json",
    "golden_values_0.8.0.json",
    "golden_values_0.9.0_dgx_a100_lts.json",
    "golden_values_0.13.0_TE2.5_dgx_h100_dev.json",
    "golden_values_0.11.0_PyT24.10_dgx_a100_lts.json",
)

CASE = """\
ENV_VARS:
  CUDA_DEVICE_MAX_CONNECTIONS: 1
  NVTE_ALLOW_NONDETERMINISTIC_ALGO: 0
  NCCL_ALGO: Ring
  CUBLAS_WORKSPACE_CONFIG: :4096:8
TEST_TYPE: {test_type}
{more}MODEL_ARGS:
  # ── Größe ──
  --num-layers: 12
  --train-iters: {n}
  --save-interval: {half}
  --lr: 1.0e-5
  --split: 949,50,1
  --save: ${{CHECKPOINT_SAVE_PATH}}
  --load: ${{CHECKPOINT_LOAD_PATH}}
  --tensorboard-dir: ${{TENSORBOARD_PATH}}
  --tensor-model-parallel-size: 2
  --pipeline-model-parallel-size: 2
  --bf16: true
  --spec: "[megatron.core.specs a_spec]"
  --incoming-requests-per-sec: -1
LAUNCHER: ft_launcher
"""
CONSISTENCY = """\
ENV_VARS:
  SKIP_PYTEST: 0
MODEL_ENV_VARS:
  MODEL_ARGS_10:
    GPUS_PER_NODE: 2
TEST_TYPE: checkpoint-consistency
MODE: pretraining
BASE_MODEL_ARGS: &BASE_MODEL_ARGS
  --seed: ${REPEAT}
  --train-iters: 1
  --micro-batch-size: 1
MODEL_ARGS:
  <<: *BASE_MODEL_ARGS
  --tensor-model-parallel-size: 1
MODEL_ARGS_2:
  <<: *BASE_MODEL_ARGS
  --micro-batch-size: 2
MODEL_ARGS_3:
  <<: *BASE_MODEL_ARGS
LAUNCHER: ft_launcher
"""
#: Further keys of a case, by how many of its kind have them.
_MORE = {
    "inference": 'MODE: inference\nMETRICS:\n  - "generated_tokens"\n  - "logprobs"\n',
    "rl": "MODE: rl\nMETRICS: []\n",
    "no metrics": "METRICS:\n",
    "script": "BEFORE_SCRIPT: |\n  pip uninstall -y apex || true\n  echo $X | yq -P > f.yaml\n",
    "second": "MODEL_ARGS_2:\n  --train-iters: 20\n  --tensor-model-parallel-size: 1\n",
    "metrics": "METRICS:\n  - lm loss\n  - mtp_1 loss\n",
}
RECIPE = """\
type: basic
spec:
  name: "{{test_case}}_{{environment}}_{{platforms}}"
  nodes: 1
  gpus: 8
  script: |-
    ARGUMENTS=(
        TRAINING_SCRIPT_PATH=pretrain_gpt.py
    )
products:
"""


@dataclass
class Checkout:
    """What was made.

    Args:
        root: the checkout; ``cases`` is its folder of cases.
        states: how many cases are run, and not.
        files: goldens by what they hold.
        zero: the two files without a byte.
    """

    root: Path
    states: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    zero: list[Path] = field(default_factory=list)

    @property
    def cases(self) -> Path:
        return self.root / "tests" / "functional_tests" / "test_cases"


def curve(seed: int, *, n: int = N, start: int = 1, level: float = 10.9) -> dict[str, object]:
    """One metric as Megatron-LM writes it."""
    values = {str(s): round(level - 0.01 * s + 0.001 * math.sin(seed + s), 5) for s in range(start, n + 1)}
    return {"start_step": start, "end_step": n, "step_interval": 1, "values": values}


def golden(seed: int) -> dict[str, object]:
    """A golden of a training run."""
    return {
        "lm loss": curve(seed),
        "num-zeros": curve(seed, level=1500.0),
        "mem-allocated-bytes": curve(0, level=7.3e8),
        "iteration-time": curve(seed, start=2, level=0.5),
    }


def second(first: dict[str, object]) -> dict[str, object]:
    """The golden of the resumed run: the first half is "nan"."""
    found: dict[str, object] = {}
    for name, one in first.items():
        assert isinstance(one, dict)
        values = {str(s): one["values"].get(str(s), "nan") if s > N // 2 else "nan" for s in range(1, N + 1)}
        found[name] = {**one, "start_step": 1, "values": values}
    return found


def case_names() -> Iterator[tuple[str, str, str]]:
    """(test type, family, name) of every case."""
    count = 0
    for test_type, number in CASES.items():
        for index in range(number):
            family = FAMILIES[count % len(FAMILIES)]
            name = f"{family.replace('-', '_')}_mcore_te_tp{count}_pp2_{test_type.replace('-', '_')}"
            if count == 3:
                name = LONG
            if count == 5:
                name = "multimodal-llava-mcore_te_tp1_pp1"
            count += 1
            # Newer checkouts have the families one level deeper.
            yield test_type, f"core/models/{family}" if index % 9 == 8 else family, name


def make(root: Path) -> Checkout:
    """Write a whole checkout: cases, goldens, recipes, and what lies about between them."""
    made = Checkout(root)
    folders: list[tuple[Path, str]] = []
    products = []
    for index, (test_type, family, name) in enumerate(case_names()):
        folder = made.cases / family / name
        folder.mkdir(parents=True)
        kinds = tuple(_MORE)
        kind = "rl" if index % 6 == 0 else "inference"
        if test_type != "frozen-start":
            kind = kinds[2 + index % 4] if index % 3 == 0 else ""
        more = _MORE.get(kind, "")
        text = CASE.format(test_type=test_type, more=more, n=N, half=N // 2)
        (folder / "model_config.yaml").write_text(
            CONSISTENCY if test_type == "checkpoint-consistency" else text
        )
        folders.append((folder, kind))
        products.append(f"  - test_case: [{name}]\n    products:\n      - environment: [dev, lts]\n")
        products.append("        platforms: [dgx_h100, dgx_a100]\n")
    run = sum(CASES[kind] for kind in ("regular", "ckpt-resume", "frozen-resume"))
    made.states = {"run": run, "not run": sum(CASES.values()) - run}
    made.files = _goldens(made, folders)
    recipes = root / "tests" / "test_utils" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "gpt.yaml").write_text(RECIPE + "".join(products))
    # What else lies there in the real one.
    (made.cases / "common" / "moe_perf").mkdir(parents=True)
    (made.cases / "common" / "moe_perf" / "__main__.py").write_text("raise SystemExit('was executed')\n")
    (made.cases / "bert" / "bert_mcore.yaml").write_text("MODEL_ARGS: {}\n")
    (folders[0][0] / "model_config.yaml.tmp").write_text("half of i")
    (folders[0][0] / "prompts.jsonl").write_text("{}\n")
    return made


def _goldens(made: Checkout, folders: list[tuple[Path, str]]) -> dict[str, int]:
    count = {"curves": 0, "inference": 0, "unreadable": 0}
    written = 0
    for slot in range(len(SCHEMES)):
        for index, (folder, kind) in enumerate(folders):
            name = SCHEMES[(5 * index + slot) % len(SCHEMES)]
            if written == GOLDENS:
                return count
            written += 1
            path = folder / name
            if index in (10, 50) and slot == 0:
                path.touch()
                made.zero.append(path)
                count["unreadable"] += 1
            elif kind == "inference":
                content = {"0": {"input_prompt": "a", "generated_tokens": [1, 2], "logprobs": [-0.5]}}
                path.write_text(json.dumps(content))
                count["inference"] += 1
            else:
                first = golden(index)
                path.write_text(json.dumps(second(first) if "_2nd" in name else first))
                count["curves"] += 1
    return count
