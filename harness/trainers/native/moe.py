"""Mixture of experts: router, token dispatch over EP and ETP, grouped experts, shared expert.

The local tokens of a rank (its share of the sequence under sequence parallelism) are sorted by
expert, sent to the EP rank that holds the expert, gathered over ETP, computed there with each
expert's inner width cut over ETP, summed back over ETP and returned the way they came. No token is
dropped, so every count is exact and uneven.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.trainers.native import mappings
from harness.trainers.native.layers import Factory


class _AttachAuxLoss(torch.autograd.Function):
    """Identity on the activations that lets an auxiliary loss join the backward pass.

    ``scale`` holds what the main loss is multiplied by (1 / micro-batches, times the loss scale).
    """

    scale = 1.0

    @staticmethod
    def forward(ctx: mappings.Context, x: Tensor, aux: Tensor) -> Tensor:
        ctx.save_for_backward(aux)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: mappings.Context, grad: Tensor) -> tuple[Tensor, Tensor]:
        (aux,) = ctx.saved_tensors
        return grad, torch.full_like(aux, _AttachAuxLoss.scale)


def set_aux_loss_scale(scale: float) -> None:
    """Factor of the auxiliary loss in the next backward passes."""
    _AttachAuxLoss.scale = scale


class Router(nn.Module):
    """Top-k router in fp32 with load balancing.

    ``softmax``: top-k of the logits, then softmax over them. ``sigmoid``: scores normalised over
    the chosen; an optional expert bias, moved after each step towards balance, joins the choice only.
    """

    expert_bias: Tensor
    tokens_per_expert: Tensor

    def __init__(self, factory: Factory, name: str) -> None:
        super().__init__()
        args = factory.args
        self.experts, self.topk = args.num_experts, args.moe_router_topk
        self.sigmoid = args.moe_router_score_function == "sigmoid"
        balanced = args.moe_router_load_balancing_type == "aux_loss"
        self.coeff = args.moe_aux_loss_coeff if balanced else 0.0
        self.tp = factory.parallel.tp
        self.weight = factory.parameter(
            f"{name}.weight",
            (self.experts, args.hidden_size),
            std=args.init_method_std,
            sum_over_tp=args.sequence_parallel,
        )  # [e, h]
        self.biased = args.moe_router_enable_expert_bias
        if self.biased:
            factory.buffer(self, "expert_bias", f"{name}.expert_bias", torch.zeros(self.experts))
            self.register_buffer(
                "tokens_per_expert",
                torch.zeros(self.experts, device=factory.device),
                persistent=False,
            )
        self.aux_total = 0.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (float32) and numbers (int64) of the experts of ``x [t, h]``, and ``x`` with the loss."""
        logits = F.linear(x.float(), self.weight.float())  # [t, e]
        if self.sigmoid:
            scores = logits.sigmoid()  # [t, e]
            choice = scores + self.expert_bias if self.biased else scores  # [t, e]
            chosen = choice.topk(self.topk, dim=-1).indices  # [t, k]
            weights = scores.gather(-1, chosen)
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)  # [t, k]
            probs = scores / (scores.sum(-1, keepdim=True) + 1e-20)  # [t, e]
        else:
            top, chosen = logits.topk(self.topk, dim=-1)  # each [t, k]
            weights = top.softmax(-1)  # [t, k]
            probs = logits.softmax(-1)  # [t, e]
        counts = torch.bincount(chosen.flatten(), minlength=self.experts).float()  # [e]
        if self.training and self.biased:
            self.tokens_per_expert += counts
        if self.training and self.coeff:
            x = self._balance(x, probs, counts)
        return weights, chosen, x  # [t, k], [t, k], [t, h]

    def _balance(self, x: Tensor, probs: Tensor, counts: Tensor) -> Tensor:
        # Switch-style: experts · Σ (share of tokens) · (mean probability), over the micro-batch's
        # tokens on all TP ranks; each rank attaches its own tokens' part of that sum.
        sums = probs.sum(0)  # [e]
        both = torch.stack([counts, sums.detach()])  # [2, e]
        counts, all_sums = self.tp.all_reduce(both).unbind(0)  # each [e]
        tokens = probs.shape[0] * self.tp.size
        factor = self.coeff * self.experts / (tokens * self.topk) * counts / tokens  # [e]
        self.aux_total += float((factor * all_sums).sum()) / self.coeff
        attached: Tensor = _AttachAuxLoss.apply(x, (factor * sums).sum())  # [t, h]
        return attached

    def take_aux_loss(self) -> float:
        """Load-balancing loss summed over the training micro-batches since the last call."""
        total, self.aux_total = self.aux_total, 0.0
        return total


class GroupedExperts(nn.Module):
    """This rank's experts; each one's inner width is cut over ETP. ``[n, h] → [n, h]``. No biases."""

    def __init__(self, factory: Factory, name: str) -> None:
        super().__init__()
        args, parallel = factory.args, factory.parallel
        shape1 = (args.num_experts, args.moe_ffn_hidden_size, args.hidden_size)
        shape2 = (args.num_experts, args.hidden_size, args.moe_ffn_hidden_size)
        self.weight1 = factory.parameter(
            f"{name}.linear_fc1.weight",
            shape1,
            cuts={0: parallel.ep, 1: parallel.etp},
            std=args.init_method_std,
            expert=True,
        )  # [e/ep, f/etp, h]
        self.weight2 = factory.parameter(
            f"{name}.linear_fc2.weight",
            shape2,
            cuts={0: parallel.ep, 2: parallel.etp},
            std=factory.residual_std,
            expert=True,
        )  # [e/ep, h, f/etp]

    def forward(self, x: Tensor, counts: list[int]) -> Tensor:
        """Of rows sorted by local expert, ``counts [e/ep]`` of them for each; a part of the sum over ETP."""
        parts = [
            F.linear(F.gelu(F.linear(part, w1)), w2)
            for part, w1, w2 in zip(x.split(counts), self.weight1, self.weight2, strict=True)
        ]
        return torch.cat(parts)


@dataclass(frozen=True)
class Route:
    """The way of one micro-batch's tokens, as counts of rows.

    ``order`` sorts the local (token, choice) pairs by expert; ``group`` sorts what arrives (ETP
    source, EP source, expert) by local expert, and ``ungroup`` undoes it.
    """

    order: Tensor  # [t*k]
    send: list[int]  # [ep]
    receive: list[int]  # [ep]
    gathered: list[int]  # [etp]
    group: Tensor  # [n]
    ungroup: Tensor  # [n]
    per_expert: list[int]  # [e/ep]


class MoELayer(nn.Module):
    """Experts in place of the MLP. ``[s(/tp), b, h] → [s(/tp), b, h]``."""

    def __init__(self, factory: Factory, name: str, shared: nn.Module | None) -> None:
        super().__init__()
        parallel = factory.parallel
        self.ep, self.etp, self.tp_ep = parallel.ep, parallel.etp, parallel.tp_ep
        self.router = Router(factory, f"{name}.router")
        self.experts = GroupedExperts(factory, f"{name}.experts")
        self.shared_experts = shared
        self.local = factory.args.num_experts // self.ep.size

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])  # [t, h]
        weights, chosen, flat = self.router(flat)  # [t, k], [t, k], [t, h]
        route = self._route(chosen)
        k = chosen.shape[-1]
        pairs = flat.unsqueeze(1).expand(-1, k, -1).reshape(-1, flat.shape[-1])[route.order]  # [t*k, h]
        arrived = mappings.all_to_all(pairs, self.ep, route.send, route.receive)  # [sum(route.receive), h]
        arrived = mappings.gather_uneven(arrived, self.etp, route.gathered)  # [sum(route.gathered), h]
        done = self.experts(arrived[route.group], route.per_expert)[route.ungroup]
        done = mappings.reduce_scatter_uneven(done, self.etp, route.gathered)  # [sum(route.receive), h]
        back = mappings.all_to_all(done, self.ep, route.receive, route.send)  # [t*k, h]
        pairs = back[torch.argsort(route.order)].view(flat.shape[0], k, -1)  # [t, k, h]
        y: Tensor = (pairs * weights.unsqueeze(-1).to(pairs.dtype)).sum(1).view_as(x)  # [s(/tp), b, h]
        return y if self.shared_experts is None else y + self.shared_experts(x)

    def _route(self, chosen: Tensor) -> Route:
        experts, local = self.router.experts, self.local
        order = chosen.flatten().argsort(stable=True)  # [t*k]
        counts = torch.bincount(chosen.flatten(), minlength=experts)  # [e]
        # Of every rank that experts are laid over, ETP fastest.
        table: list[list[int]] = self.tp_ep.all_gather(counts.unsqueeze(0)).tolist()  # [ep*etp, e]
        mine = counts.tolist()  # [e]
        send = [sum(mine[e * local : (e + 1) * local]) for e in range(self.ep.size)]  # [ep]
        here = range(self.ep.rank * local, (self.ep.rank + 1) * local)

        def source(etp: int, ep: int) -> list[int]:
            return table[ep * self.etp.size + etp]

        receive = [sum(source(self.etp.rank, ep)[e] for e in here) for ep in range(self.ep.size)]  # [ep]
        # Rows arrive as segments (ETP source, EP source, local expert): label each with its expert.
        segments = [
            [source(etp, ep)[e] for e in here] for etp in range(self.etp.size) for ep in range(self.ep.size)
        ]  # [etp*ep, e/ep]
        gathered = [
            sum(map(sum, segments[i * self.ep.size : (i + 1) * self.ep.size])) for i in range(self.etp.size)
        ]  # [etp]
        lengths = torch.tensor(segments).flatten()  # [etp*e]
        labels = torch.arange(local).repeat(len(segments)).repeat_interleave(lengths)  # [sum(gathered)]
        group = labels.argsort(stable=True)  # [sum(gathered)]
        per_expert = [sum(column) for column in zip(*segments, strict=True)]  # [e/ep]
        return Route(
            order,
            send,
            receive,
            gathered,
            group.to(chosen.device),
            group.argsort().to(chosen.device),
            per_expert,
        )


def routers(chunks: list[Any]) -> list[Router]:
    """The routers of these model chunks, first layer first."""
    return [m for chunk in chunks for m in chunk.modules() if isinstance(m, Router)]


def update_expert_bias(routers: list[Router], rate: float, groups: list[Any]) -> None:
    """After a step, move each expert's bias towards balance: up where it got too few tokens."""
    for router in routers:
        if router.biased:
            counts = router.tokens_per_expert  # [e]
            for group in groups:
                counts = group.all_reduce(counts)
            router.expert_bias += rate * torch.sign(counts.mean() - counts)
            router.tokens_per_expert.zero_()
