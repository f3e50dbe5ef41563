"""Parameters that know their place in the whole model, and the tensor-parallel layers made of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.trainers.native import mappings
from harness.trainers.native.arguments import Arguments
from harness.trainers.native.comm.world import Group
from harness.trainers.native.parallel import Parallel
from harness.trainers.native.rng import COMMON, MODEL_PARALLEL, Streams


@dataclass(frozen=True)
class Spec:
    """Where a local parameter or buffer sits in the global one, and how it is treated.

    ``shape`` and ``offset`` are global, in elements; ``rows`` is how many rows of dimension 0 are
    real (the rest pads the vocabulary). ``owner`` marks the one rank that counts and writes it
    among tensor-parallel ranks that hold equal copies.
    """

    name: str
    shape: tuple[int, ...]
    offset: tuple[int, ...]
    rows: int
    owner: bool = True
    sum_over_tp: bool = False
    expert: bool = False
    tied_copy: bool = False
    decay: bool = True
    edge: bool = False


class Factory:
    """Makes parameters: the same global values in every layout, cut to this rank's part."""

    def __init__(self, args: Arguments, parallel: Parallel, streams: Streams, device: torch.device) -> None:
        self.args, self.parallel, self.streams, self.device = args, parallel, streams, device
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[args.precision]
        self.specs: dict[nn.Parameter, Spec] = {}
        self.buffers: dict[str, tuple[Spec, Tensor]] = {}

    def parameter(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        cuts: Mapping[int, Group] | None = None,
        std: float | None = None,
        fill: float = 0.0,
        rows: tuple[int, int] | None = None,
        values_of: str | None = None,
        **flags: bool,
    ) -> nn.Parameter:
        """A parameter of global ``shape``, cut along each dimension of ``cuts`` over a group.

        Args:
            std: standard deviation of a normal distribution; None fills with ``fill``.
            rows: (first row, padded row count) of this rank, where dimension 0 is cut unevenly.
            values_of: draw the values of this global name instead (a tied copy).
        """
        full = self._values(values_of or name, shape, std, fill)
        offset = [0] * len(shape)
        local = full
        if rows is not None:
            offset[0] = min(rows[0], shape[0])  # padding only: at the end, where nothing is
            local = full[rows[0] : rows[0] + rows[1]]
        for dim, group in (cuts or {}).items():
            size = shape[dim] // group.size
            offset[dim] = group.rank * size
            local = local.narrow(dim, offset[dim], size)
        real = local.shape[0]
        if rows is not None and real < rows[1]:
            local = torch.cat([local, local.new_zeros(rows[1] - real, *shape[1:])])
        value = local.to(self.device, self.dtype, copy=True).contiguous()
        result = nn.Parameter(value)
        # A tensor that is not cut over TP is held alike by all of TP: the first rank speaks for it.
        whole = rows is None and not cuts
        owner = not whole or self.parallel.layout.tp_rank == 0
        self.specs[result] = Spec(name, shape, tuple(offset), real, owner, **flags)
        return result

    def _values(self, name: str, shape: tuple[int, ...], std: float | None, fill: float) -> Tensor:
        if std is None:
            return torch.full(shape, fill)
        digest = hashlib.sha256(f"{self.args.seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        return torch.empty(shape).normal_(0.0, std, generator=generator)

    def buffer(
        self,
        module: nn.Module,
        attribute: str,
        name: str,
        value: Tensor,
        shape: tuple[int, ...] | None = None,
        offset: tuple[int, ...] | None = None,
        *,
        owner: bool | None = None,
    ) -> None:
        """Register training state that no gradient reaches; it is checkpointed as ``buffer.<name>``."""
        module.register_buffer(attribute, value.to(self.device))
        held = getattr(module, attribute)
        mine = self.parallel.layout.tp_rank == 0 if owner is None else owner
        spec = Spec(
            name,
            shape or tuple(value.shape),
            offset or (0,) * value.dim(),
            value.shape[0] if value.dim() else 1,
            mine,
        )
        self.buffers[name] = (spec, held)

    @property
    def residual_std(self) -> float:
        """Megatron-LM's scaled initialisation of layers that write to the residual stream."""
        return self.args.init_method_std / math.sqrt(2.0 * self.args.num_layers)


class DelayedScaling(nn.Module):
    """FP8 (e4m3) of a linear layer's input by delayed scaling: the scale comes from past maxima.

    The value is rounded to float8 and back, so that it runs on any device; gradients pass straight
    through. ``[…] → […]``. State, of each TP rank: ``amax_history`` [1, length] and ``scale`` [1].
    """

    amax_history: Tensor
    scale: Tensor

    def __init__(self, factory: Factory, name: str) -> None:
        super().__init__()
        length = factory.args.fp8_amax_history_len
        tp = factory.parallel.tp
        factory.buffer(
            self,
            "amax_history",
            f"{name}.amax_history",
            torch.zeros(1, length),
            (tp.size, length),
            (tp.rank, 0),
            owner=True,
        )
        factory.buffer(self, "scale", f"{name}.scale", torch.ones(1), (tp.size,), (tp.rank,), owner=True)
        self.limit = torch.finfo(torch.float8_e4m3fn).max

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale.clone()  # [1]
        if self.training:
            with torch.no_grad():
                self.amax_history.copy_(self.amax_history.roll(1, 1))
                self.amax_history[0, 0] = x.detach().abs().amax().float()
                self.scale.copy_(self.limit / self.amax_history.amax().clamp(min=1e-12))
        scaled = (x.detach().float() * scale).clamp(-self.limit, self.limit)
        rounded = (scaled.to(torch.float8_e4m3fn).float() / scale).to(x.dtype)
        return x + (rounded - x.detach())


class LayerNorm(nn.Module):
    """Layer normalisation, replicated over TP. ``[s(/tp), b, h] → [s(/tp), b, h]``."""

    def __init__(self, factory: Factory, name: str) -> None:
        super().__init__()
        args = factory.args
        self.shape, self.eps = (args.hidden_size,), args.layernorm_epsilon
        partial = args.sequence_parallel
        self.weight = factory.parameter(
            f"{name}.weight", self.shape, fill=1.0, decay=False, sum_over_tp=partial
        )  # [h]
        self.bias = factory.parameter(f"{name}.bias", self.shape, decay=False, sum_over_tp=partial)  # [h]

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


class ColumnParallelLinear(nn.Module):
    """``y = x Wᵀ + b`` with the rows of ``W`` over TP. ``[s(/tp), b, i] → [s, b, o/tp]``."""

    def __init__(self, factory: Factory, name: str, inputs: int, outputs: int) -> None:
        super().__init__()
        args, self.tp = factory.args, factory.parallel.tp
        self.sequence_parallel = args.sequence_parallel
        self.weight = factory.parameter(
            f"{name}.weight", (outputs, inputs), cuts={0: self.tp}, std=args.init_method_std
        )  # [o/tp, i]
        self.bias = (
            None
            if args.disable_bias_linear
            else factory.parameter(f"{name}.bias", (outputs,), cuts={0: self.tp}, decay=False)
        )  # [o/tp]
        self.fp8 = DelayedScaling(factory, f"{name}.fp8") if args.fp8_format else None

    def forward(self, x: Tensor) -> Tensor:
        x = mappings.into_tensor_parallel(x, self.tp, sequence_parallel=self.sequence_parallel)  # [s, b, i]
        if self.fp8 is not None:
            x = self.fp8(x)
        return F.linear(x, self.weight, self.bias)


class RowParallelLinear(nn.Module):
    """``y = x Wᵀ + b`` with the columns of ``W`` over TP. ``[s, b, i/tp] → [s(/tp), b, o]``.

    The bias is added once.
    """

    def __init__(self, factory: Factory, name: str, inputs: int, outputs: int) -> None:
        super().__init__()
        args, self.tp = factory.args, factory.parallel.tp
        self.sequence_parallel = args.sequence_parallel
        self.weight = factory.parameter(
            f"{name}.weight", (outputs, inputs), cuts={1: self.tp}, std=factory.residual_std
        )  # [o, i/tp]
        self.bias = (
            None
            if args.disable_bias_linear
            else factory.parameter(
                f"{name}.bias", (outputs,), decay=False, sum_over_tp=self.sequence_parallel
            )
        )  # [o]
        self.fp8 = DelayedScaling(factory, f"{name}.fp8") if args.fp8_format else None

    def forward(self, x: Tensor) -> Tensor:
        if self.fp8 is not None:
            x = self.fp8(x)
        y = F.linear(x, self.weight)  # [s, b, o], a part of the sum
        y = mappings.out_of_tensor_parallel(y, self.tp, sequence_parallel=self.sequence_parallel)
        return y if self.bias is None else y + self.bias


class Dropout(nn.Module):
    """Dropout by one of the rank's own streams, while training. ``[…] → […]``."""

    def __init__(self, factory: Factory, p: float, stream: str) -> None:
        super().__init__()
        self.streams, self.p, self.stream = factory.streams, p, stream

    @staticmethod
    def hidden(factory: Factory) -> Dropout:
        """Of activations between layers.

        With sequence parallelism each TP rank holds other tokens, so it must draw other masks.
        """
        args = factory.args
        return Dropout(factory, args.hidden_dropout, MODEL_PARALLEL if args.sequence_parallel else COMMON)

    def forward(self, x: Tensor) -> Tensor:
        return self.streams.dropout(x, self.p, self.stream) if self.training else x


@dataclass(frozen=True)
class VocabRange:
    """This rank's rows of the vocabulary: ``[first, first + real)`` are tokens, the rest is padding."""

    first: int
    padded: int
    real: int

    @staticmethod
    def of(args: Arguments, tp: Group) -> VocabRange:
        """Megatron-LM's padding: up to a multiple of ``make_vocab_size_divisible_by · TP``."""
        unit = args.make_vocab_size_divisible_by * tp.size
        padded = math.ceil(args.vocab_size / unit) * unit // tp.size  # v/tp
        first = padded * tp.rank
        return VocabRange(first, padded, max(0, min(padded, args.vocab_size - first)))


class VocabParallelEmbedding(nn.Module):
    """Rows of the token embedding over TP. ``[b, s] → [s, b, h]``, the same on all of TP."""

    def __init__(self, factory: Factory, name: str) -> None:
        super().__init__()
        args, self.tp = factory.args, factory.parallel.tp
        self.vocab = VocabRange.of(args, self.tp)
        self.weight = factory.parameter(
            name,
            (args.vocab_size, args.hidden_size),
            std=args.init_method_std,
            rows=(self.vocab.first, self.vocab.padded),
            edge=True,
        )  # [v/tp, h]

    def forward(self, tokens: Tensor) -> Tensor:
        local = tokens.t() - self.vocab.first  # [s, b]
        mine = (local >= 0) & (local < self.vocab.padded)  # [s, b]
        rows = F.embedding(local.where(mine, torch.zeros_like(local)), self.weight)  # [s, b, h]
        return mappings.reduce_from(rows * mine.unsqueeze(-1).to(rows.dtype), self.tp)


class _CrossEntropy(torch.autograd.Function):
    """Cross entropy of logits (float32) whose vocabulary is cut over TP. ``[s, b, v/tp] → [s, b]``."""

    @staticmethod
    def forward(
        ctx: mappings.Context, logits: Tensor, labels: Tensor, tp: Group, vocab: VocabRange
    ) -> Tensor:
        if vocab.real < vocab.padded:
            logits = logits.clone()
            logits[..., vocab.real :] = float("-inf")
        top = logits.amax(-1)  # [s, b]
        top = tp.all_reduce(top, "max")
        shifted = logits - top.unsqueeze(-1)  # [s, b, v/tp]
        local = labels - vocab.first  # [s, b]
        mine = (local >= 0) & (local < vocab.real)  # [s, b]
        local = local.where(mine, torch.zeros_like(local))
        picked = shifted.gather(-1, local.unsqueeze(-1)).squeeze(-1)  # [s, b]
        picked = picked.where(mine, torch.zeros_like(picked))
        weights = shifted.exp_()  # [s, b, v/tp]
        both = torch.stack([weights.sum(-1), picked])  # [2, s, b]
        total, picked = tp.all_reduce(both).unbind(0)  # each [s, b]
        ctx.save_for_backward(weights.div_(total.unsqueeze(-1)), local, mine)
        return total.log() - picked

    @staticmethod
    def backward(ctx: mappings.Context, grad: Tensor) -> tuple[Tensor, None, None, None]:
        softmax, local, mine = ctx.saved_tensors  # [s, b, v/tp], [s, b], [s, b]
        result = softmax.clone()  # [s, b, v/tp]
        result.scatter_add_(-1, local.unsqueeze(-1), -mine.to(result.dtype).unsqueeze(-1))
        return result.mul_(grad.unsqueeze(-1)), None, None, None


def vocab_parallel_cross_entropy(logits: Tensor, labels: Tensor, tp: Group, vocab: VocabRange) -> Tensor:
    """Loss of each token, in nats, float32. ``[s, b, v/tp] → [s, b]``, and ``labels [s, b]``."""
    loss: Tensor = _CrossEntropy.apply(logits.float(), labels, tp, vocab)  # [s, b]
    return loss
