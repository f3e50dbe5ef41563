"""Adam as apex's and Transformer Engine's FusedAdam have it: ``step`` is the group's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FusedAdam(torch.optim.Optimizer):
    """Adam, or AdamW with ``adam_w_mode``; moments in the precision of the parameter.

    Source: Kingma and Ba (2015); Loshchilov and Hutter (2019); apex/optimizers/fused_adam.py for what is kept
    where.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        adam_w_mode: bool = True,
        weight_decay: float = 0.0,
        **_: Any,
    ) -> None:
        defaults = {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps,
                    "weight_decay": weight_decay}  # fmt: skip
        super().__init__(params, defaults)
        self.adam_w_mode = adam_w_mode

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One step of every group that has parameters."""
        for group in self.param_groups:
            if not group["params"]:
                continue
            group["step"] = group.get("step", 0) + 1
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad.float(), group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        first, second = group["betas"]
        if not self.adam_w_mode:
            gradient = gradient + group["weight_decay"] * parameter
        state["exp_avg"].mul_(first).add_(gradient, alpha=1 - first)
        state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        corrected = group["bias_correction"]
        mean = state["exp_avg"] / (1 - first ** group["step"] if corrected else 1)
        spread = state["exp_avg_sq"] / (1 - second ** group["step"] if corrected else 1)
        update = mean / (spread.sqrt() + group["eps"])
        if self.adam_w_mode:
            update = update + group["weight_decay"] * parameter
        parameter.add_(update, alpha=-group["lr"])
