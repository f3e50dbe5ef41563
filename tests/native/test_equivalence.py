"""The parallelism is real and right: with dropout off, every layout follows one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.native.conftest import Trains

pytestmark = pytest.mark.torch

MOE = {
    "num_experts": 8,
    "moe_router_topk": 2,
    "moe_aux_loss_coeff": 0.01,
    "moe_ffn_hidden_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "disable_bias_linear": True,
}
NO_DROPOUT: dict[str, Any] = {
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "harness_exit_iters": 20,
    "train_iters": 40,
    # a larger rate amplifies rounding; this is the rate of the cases
    "lr": 0.003,
}

LAYOUTS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "TP4 PP2 EP2 ETP2": (
        8,
        MOE,
        {
            "tensor_model_parallel_size": 4,
            "pipeline_model_parallel_size": 2,
            "expert_model_parallel_size": 2,
            "expert_tensor_parallel_size": 2,
            "sequence_parallel": True,
            "use_distributed_optimizer": True,
        },
    ),
    "PP4 VP2": (
        4,
        {"num_layers": 8, "decoupled_lr": 0.004},
        {"pipeline_model_parallel_size": 4, "num_layers_per_virtual_pipeline_stage": 1},
    ),
    "TP2 PP2 DP2": (
        8,
        {},
        {
            "tensor_model_parallel_size": 2,
            "pipeline_model_parallel_size": 2,
            "sequence_parallel": True,
            "use_distributed_optimizer": True,
        },
    ),
    "TP2 DP2 EP4 without its own tensor parallelism": (
        4,
        MOE,
        {
            "tensor_model_parallel_size": 2,
            "expert_model_parallel_size": 4,
            "expert_tensor_parallel_size": 1,
            "sequence_parallel": True,
            "use_distributed_optimizer": True,
        },
    ),
    "TP4 without sequence parallelism": (4, {}, {"tensor_model_parallel_size": 4}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_first_losses_of_every_layout_follow_one_process(layout: str, train: Trains) -> None:
    world, model, parallel = LAYOUTS[layout]
    alone = train(1, **NO_DROPOUT, **model)
    together = train(world, **NO_DROPOUT, **model, **parallel)
    expected = np.array(alone.values("lm loss"), np.float32)
    found = np.array(together.values("lm loss"), np.float32)
    assert len(expected) == 20
    assert abs(found[0] - expected[0]) <= 2 * np.spacing(expected[0])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=0)
    assert together.values("batch-digest") == alone.values("batch-digest")
    np.testing.assert_allclose(together.values("grad-norm"), alone.values("grad-norm"), rtol=1e-5)


def test_losses_tell_layouts_apart_when_dropout_is_on(train: Trains) -> None:
    # What makes the test above sharp: another mask is another loss, far outside its bounds.
    alone = train(1, harness_exit_iters=2, eval_interval=100)
    together = train(
        2,
        harness_exit_iters=2,
        eval_interval=100,
        tensor_model_parallel_size=2,
        sequence_parallel=True,
    )
    assert abs(alone.values("lm loss")[0] / together.values("lm loss")[0] - 1) > 1e-4
