"""Measure what floating-point bits this machine and this torch make: a digest an operation.

A golden is the same to the last bit wherever the operations that made it round alike, whatever the
machine is called. So the operations are run, on fixed inputs, and hashed. They are written here in plain
torch and shared with no trainer: no change to the code under test can change a digest, only another
library, another processor or another switch can.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Rows, inputs and outputs of linear layers: whole, cut over tensor parallelism, a vocabulary, a router,
#: and experts that get few rows. Kernels are chosen by size, so the sizes are part of what is measured.
_LINEAR: Final = (
    (128, 64, 192), (128, 64, 256), (128, 256, 64), (128, 64, 48), (128, 16, 64), (128, 64, 64),
    (64, 32, 96), (32, 64, 32), (128, 64, 8), (64, 64, 8), (32, 64, 160),
)  # fmt: skip
_FEW_ROWS: Final = ((1, 64, 32), (3, 64, 32), (7, 32, 64), (13, 64, 64), (29, 64, 128), (45, 32, 64))
#: What a GPU is used for; small products take other kernels there.
_LARGE: Final = ((4096, 512, 1536), (4096, 512, 2048), (4096, 2048, 512), (1024, 512, 8192))
#: Batches times heads, positions, width of a head.
_HEADS: Final = ((16, 64, 8), (4, 64, 16), (8, 32, 8), (2, 64, 32))
_LARGE_HEADS: Final = ((8, 1024, 64),)
_SEED: Final = 1234
_DIGITS: Final = 16  # of a digest: 64 bits, for nobody forges one
_FOLD: Final = 1 << 21  # bytes; what is larger is added up before it is brought to the host

Digests = dict[str, str]


def measure(device: str | torch.device = "cpu", precision: str = "fp32") -> Digests:
    """Run the operations of training and hash what they give, operation by operation.

    Takes a fifth of a second on a CPU. Whatever was set for this process is what is measured:
    threads, torch's switches, variables of libraries.

    Args:
        device: torch's name of it.
        precision: of the model, ``fp32``, ``bf16`` or ``fp16``; what an optimizer and a loss do is
            measured in float32 and float64 as well.

    Returns:
        The first 16 digits of a SHA-256 by the operation's name, in the order in which a training step
        comes to them. A precision stands in the name: ``linear, bf16``. One that this device cannot run is
        left out, and said: measuring ends no training.
    """
    import torch

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    bench = _Bench(torch.device(device), kinds[precision])
    suffix = f", {precision}"
    operations = {
        "libm": _libm,
        "first weights": bench.normal,
        "random numbers": bench.random,
        "embedding" + suffix: bench.embedding,
        "layer norm" + suffix: bench.layer_norm,
        "linear" + suffix: bench.linear,
        "attention" + suffix: bench.attention,
        "softmax": bench.softmax,
        "gelu" + suffix: bench.gelu,
        "routing": bench.routing,
        "cross entropy": bench.cross_entropy,
        "sums": bench.sums,
        "Adam": bench.adam,
    }
    found: Digests = {}
    for name, operation in operations.items():
        try:
            found[name] = _digest(operation())
        except (RuntimeError, NotImplementedError) as error:  # no kernel, no repeatable one, no memory
            print(f"numerics: {name} cannot be measured here: {error}", flush=True)
    if bench.large:  # what this took is not the training's
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
    return found


def measure_all_reduce(rank: int, device: torch.device) -> Digests:
    """Sum over all ranks by torch's own collective; every rank of the default process group must call it."""
    import torch
    import torch.distributed as dist

    bench = _Bench(device, torch.float32)
    results = []
    for count in (3, 4096, 100_003):
        part = bench.values(count, key=rank)
        dist.all_reduce(part)
        results.append(part)
    return {"all-reduce": _digest(results)}


class _Bench:
    """The operations, on one device, of a model in one precision. Each yields its results and gradients."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.large = device.type != "cpu"

    def values(
        self, *shape: int, scale: float = 1.0, key: int = 0, dtype: torch.dtype | None = None
    ) -> Tensor:
        """About normal, by whole-number arithmetic alone, so that every machine has the same ones."""
        import torch

        count = math.prod(shape)
        # Each product stays below 2^63: nothing wraps around, nothing is rounded.
        counter = torch.arange(4 * count, dtype=torch.int64, device=self.device) + 4 * count * key + _SEED
        mixed = (counter * 2654435761 + 40503) % 4294967291
        mixed = (mixed % 1000003 * 998244353 + mixed // 1000003) % 65536
        centred = mixed.view(4, count).sum(0) - 2 * 65535
        made = (centred.double() * 2.0**-15 * scale).float().view(shape)
        return made.to(dtype or self.dtype)

    def with_gradients(self, function: Callable[..., Tensor], *inputs: Tensor) -> Iterator[Tensor]:
        """The result of ``function`` and the gradient of each floating-point input."""
        import torch

        leaves = [x.detach().clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
        with torch.enable_grad():
            result = function(*leaves)
        seed = self.values(*result.shape, scale=0.1, key=7, dtype=result.dtype)
        yield result
        yield from torch.autograd.grad(result, [x for x in leaves if x.is_floating_point()], seed)

    def normal(self) -> Iterator[Tensor]:
        """First weights, drawn on the host: the same numbers everywhere, and not rounded alike."""
        import torch

        host = torch.Generator().manual_seed(_SEED)
        for size in ((96, 33), (7,)):
            yield torch.empty(size).normal_(0.0, 0.02, generator=host)

    def random(self) -> Iterator[Tensor]:
        """Dropout masks, and a generator's state after them: other ones are another training's."""
        import torch

        here = torch.Generator(self.device).manual_seed(_SEED)
        for p in (0.9, 0.5):
            yield torch.empty(64, 2, 65, device=self.device, dtype=self.dtype).bernoulli_(p, generator=here)
        yield here.get_state()

    def embedding(self) -> Iterator[Tensor]:
        """Rows by number, and their gradient, in which rows that are asked for twice add up."""
        import torch

        numbers = (torch.arange(128) * 37 % 53).view(64, 2).to(self.device)
        return self.with_gradients(
            lambda table: torch.nn.functional.embedding(numbers, table), self.values(64, 64)
        )

    def layer_norm(self) -> Iterator[Tensor]:
        """Of widths that fill vectors and that do not."""
        from torch.nn.functional import layer_norm

        for width in (64, 72, 512):
            x, weight, bias = (
                self.values(*shape, key=width) for shape in ((64, 2, width), (width,), (width,))
            )
            yield from self.with_gradients(
                lambda x, w, b: layer_norm(x, w.shape, w, b, 1e-5), x, weight, bias
            )

    def linear(self) -> Iterator[Tensor]:
        """Products of matrices at the sizes of a model's layers, with the bias and without, and gradients."""
        from torch.nn.functional import linear

        for rows, inputs, outputs in (*_LINEAR, *_FEW_ROWS, *(_LARGE if self.large else ())):
            x = self.values(rows, inputs, key=1)
            weight, bias = self.values(outputs, inputs, scale=0.1, key=2), self.values(outputs, key=3)
            yield from self.with_gradients(linear, x, weight, bias)
            yield from self.with_gradients(linear, x.view(rows, 1, inputs), weight)

    def attention(self) -> Iterator[Tensor]:
        """Batched products of queries, keys and values, transposed and not."""
        import torch

        for heads, positions, width in (*_HEADS, *(_LARGE_HEADS if self.large else ())):
            q, k, v = (self.values(heads, positions, width, key=key) for key in (1, 2, 3))
            yield from self.with_gradients(lambda q, k: torch.bmm(q, k.transpose(1, 2)), q, k)
            weights = self.values(heads, positions, positions, scale=0.1)
            yield from self.with_gradients(torch.bmm, weights, v)

    def softmax(self) -> Iterator[Tensor]:
        """Of scores with a causal mask, in float32."""
        import torch

        for count, width in ((16, 64), (4, 33), (2, 1024)):
            scores = self.values(count, width, width if width < 1024 else 8, scale=3.0, dtype=torch.float32)
            mask = torch.ones(scores.shape[1:], dtype=torch.bool, device=self.device).triu(1)
            yield from self.with_gradients(
                lambda x, mask=mask: x.masked_fill(mask, float("-inf")).softmax(-1), scores / math.sqrt(8)
            )

    def gelu(self) -> Iterator[Tensor]:
        """Of one million-th to large, and of a length that fills no vector."""
        from torch.nn.functional import gelu

        for x in (self.values(128, 256, scale=2.0), self.values(7, 33), self.values(64, scale=1e-6)):
            yield from self.with_gradients(gelu, x)

    def routing(self) -> Iterator[Tensor]:
        """A router, in float32 whatever the model is; the choice of the largest, sorting, counting."""
        import torch

        x, weight = (self.values(*size, dtype=torch.float32) for size in ((128, 64), (8, 64)))
        yield from self.with_gradients(torch.nn.functional.linear, x, weight)
        logits = self.values(128, 8, dtype=torch.float32)
        yield from self.with_gradients(lambda x: x.sigmoid(), logits)
        top, chosen = logits.topk(2, dim=-1)
        yield top.softmax(-1)
        yield chosen.flatten().argsort(stable=True)
        yield torch.bincount(chosen.flatten(), minlength=8)
        rows = self.values(256, 64)
        pairs = torch.arange(256, device=self.device).flip(0)
        yield from self.with_gradients(lambda x: x[pairs].view(128, 2, 64).sum(1), rows)

    def cross_entropy(self) -> Iterator[Tensor]:
        """Maximum, exponential, sum, logarithm over a vocabulary, and the scattered gradient."""
        import torch

        for rows, vocabulary in ((128, 256), (128, 64), (128, 40), (16, 8192)):
            logits = self.values(rows, vocabulary, scale=4.0, dtype=torch.float32)
            labels = (torch.arange(rows, device=self.device) * 31 % vocabulary).unsqueeze(-1)
            shifted = logits - logits.amax(-1, keepdim=True)
            picked = shifted.gather(-1, labels)
            weights = shifted.exp_()
            total = weights.sum(-1, keepdim=True)
            yield total.log() - picked
            soft = weights.div_(total)
            yield soft.scatter_add_(-1, labels, -torch.ones_like(labels, dtype=soft.dtype))
            yield (total.log() - picked).mean()

    def sums(self) -> Iterator[Tensor]:
        """Of squares in float64, of many numbers in float32, along each dimension, of halves into float32."""
        import torch

        for count in (7, 4096, 16384, 100_003):
            x = self.values(count, dtype=torch.float32)
            yield x.double().square_().sum()
            yield x.sum()
            yield x.mean()
            yield torch.count_nonzero(x.relu())
        plane = self.values(128, 65, dtype=torch.float32)
        yield from (plane.sum(0), plane.sum(1), plane.norm(), plane.float().add(plane, alpha=0.37))
        yield from (self.values(128, 65).sum(0), self.values(3, 4096).sum(0))

    def adam(self) -> Iterator[Tensor]:
        """Two fused steps of AdamW on masters in float32."""
        import torch

        for count in (33, 4096, 12_289):
            weights = torch.nn.Parameter(self.values(count, dtype=torch.float32))
            optimizer = torch.optim.AdamW(
                [weights], lr=5e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01, fused=True
            )
            for step in (1, 2):
                weights.grad = self.values(count, scale=0.01, key=step, dtype=torch.float32)
                optimizer.step()
            state = optimizer.state[weights]
            yield from (weights.detach(), state["exp_avg"], state["exp_avg_sq"])


def _libm() -> Iterator[float]:
    """What a schedule computes on the host."""
    points = [0.001 + 0.0371 * i for i in range(64)]
    functions = (math.cos, math.sin, math.exp, math.log, math.sqrt, math.tanh, lambda x: math.pow(x, 1.7))
    return chain.from_iterable((function(x) for x in points) for function in functions)


def _digest(results: Iterable[Any]) -> str:
    """Of bits, sizes and types; not of how they lie in memory."""
    import torch

    found = hashlib.sha256()
    for result in results:
        if isinstance(result, float):
            found.update(struct.pack("<d", result))
            continue
        found.update(f"{result.dtype} {tuple(result.shape)}".encode())
        plain = result.detach().contiguous().flatten().view(torch.uint8)
        if plain.numel() > _FOLD:
            plain = _folded(plain)
        found.update(plain.cpu().numpy().tobytes())
    return found.hexdigest()[:_DIGITS]


def _folded(plain: Tensor) -> Tensor:
    """Bytes of a large result, added up on its device in whole numbers, weighted by their place."""
    import torch

    words = torch.nn.functional.pad(plain, (0, -plain.numel() % _FOLD)).view(torch.int32).view(-1, _FOLD // 4)
    weights = torch.arange(words.shape[0], device=plain.device).mul_(2).add_(1).unsqueeze(-1)
    return (words * weights).sum(0).view(torch.uint8)
