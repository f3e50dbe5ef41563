"""The shapes that the trainer's comments and docstrings give are those of its tensors."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tests.native.conftest import Trains
from tests.native.shape_ranks import LETTERS, ROOT, Asserting, fits, known, letters

#: No two letters are one number, so that none can stand for another.
SIZES: dict[str, Any] = {
    "hidden_size": 40,
    "num_attention_heads": 8,
    "seq_length": 24,
    "micro_batch_size": 3,
    "global_batch_size": 12,
    "ffn_hidden_size": 56,
    "make_vocab_size_divisible_by": 4,
    "data_path": "synthetic-2000",
    "train_iters": 3,
    "eval_interval": 2,
    "save_interval": 2,
}
MOE: dict[str, Any] = {
    "num_experts": 12,
    "moe_router_topk": 7,
    "moe_ffn_hidden_size": 44,
    "moe_shared_expert_intermediate_size": 28,
    "moe_aux_loss_coeff": 0.01,
    "sequence_parallel": True,
    "use_distributed_optimizer": True,
}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one rank": (1, {}),
    "TP2 PP2 DP2 without sequence parallelism": (
        8,
        {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2, "bf16": True},
    ),
    "PP2 VP2 untied": (
        2,
        {
            "pipeline_model_parallel_size": 2,
            "num_layers_per_virtual_pipeline_stage": 1,
            "untie_embeddings_and_output_weights": True,
        },
    ),
    "TP4 PP2 EP2 ETP2": (
        8,
        {
            **MOE,
            "tensor_model_parallel_size": 4,
            "pipeline_model_parallel_size": 2,
            "expert_model_parallel_size": 2,
            "expert_tensor_parallel_size": 2,
        },
    ),
    "TP2 DP2 EP4 ETP1, expert bias, float8": (
        4,
        {
            **MOE,
            "tensor_model_parallel_size": 2,
            "expert_model_parallel_size": 4,
            "expert_tensor_parallel_size": 1,
            "moe_router_score_function": "sigmoid",
            "moe_router_enable_expert_bias": True,
            "fp8_format": "e4m3",
        },
    ),
}
RANKS = "tests.native.shape_ranks"


def places() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in ROOT.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.name != "__init__.py":
            found |= Asserting(module, path.read_text()).places
    return found


def test_every_shape_is_true_in_every_layout_that_has_it(train: Trains) -> None:
    seen: set[str] = set()
    for world, extra in LAYOUTS.values():
        run = train(world, target=f"{RANKS}:run", **SIZES, **extra, harness_exit_iters=2)
        resumed = train(world, target=f"{RANKS}:run_over_gloo", load=run.checkpoints, **SIZES, **extra)
        for one in (run, resumed):
            for rank in range(world):
                seen |= set(json.loads((one.folder / f"shapes_{rank}.json").read_text()))
    assert places().keys() - seen == set()


def test_shapes_are_written_in_letters_of_the_legend() -> None:
    said = [shape for shapes in places().values() for shape in shapes]
    assert len(said) > 150
    assert {word for shape in said for word in letters(shape) if len(word) == 1} <= LETTERS


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for letter, size in {"s": 24, "b": 3, "tp": 2}.items():
        monkeypatch.setitem(known, letter, size)


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("y = x.t()  # [s, b]", (24, 3)),
        ("y, z = x.t(), x  # [s, b], [b, s]", (3, 22)),
        ("y, z = x, x.clone()  # each [b, s]", (4, 24)),
        ("y = x  # [b, s] or [n]", (3, 24, 1)),
        ("return x.t()  # [s, b], as it should be", (3, 22)),
        ("y = x.view(-1)  # [s*b]", (3, 25)),
        ("y = x.chunk(2, 1)[0]  # [b, s/tp]", (3, 22)),
        ("y = x  # [b, …]", (4, 24)),
        ("y = [x, x]  # [len(x) - 1, …, s]", (4, 24)),
    ],
)
@pytest.mark.usefixtures("sizes")
def test_a_line_whose_shape_is_not_true_is_refused_by_its_place(line: str, other: tuple[int, ...]) -> None:
    scope: dict[str, Any] = {}
    source = f"from __future__ import annotations\ndef f(x):\n    {line}\n"
    exec(compile(Asserting("made", source).tree, "made", "exec"), scope)
    scope["f"](torch.zeros(3, 24))
    with pytest.raises(AssertionError, match=r"made:3: \[.*, found \["):
        scope["f"](torch.zeros(*other))


@pytest.mark.usefixtures("sizes")
def test_a_letter_that_is_not_given_is_one_number_within_a_call() -> None:
    own: dict[str, int] = {}
    assert fits("[n, h/tp]", [7, 5], own, {})
    assert own == {"n": 7, "h": 10}
    assert fits("[h, n*s]", [10, 168], own, {})
    assert not fits("[n]", [8], own, {})
    assert fits("[n]", [8], {}, {})
    assert fits("[len(rows), b]", [2, 3], {}, {"rows": "ab"})
