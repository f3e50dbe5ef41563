"""The GPT model, cut into pipeline chunks. Activations are ``[s(/tp), b, h]``, as in Megatron-LM."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.checkpoints.components import TIED_COPY, TIED_SOURCE
from harness.trainers.native import mappings
from harness.trainers.native.layers import (
    ColumnParallelLinear,
    Dropout,
    Factory,
    LayerNorm,
    RowParallelLinear,
    VocabParallelEmbedding,
    VocabRange,
    vocab_parallel_cross_entropy,
)
from harness.trainers.native.moe import MoELayer
from harness.trainers.native.rng import MODEL_PARALLEL


class SelfAttention(nn.Module):
    """Causal self-attention with heads over TP. ``[s(/tp), b, h] → [s(/tp), b, h]``.

    Softmax in fp32, dropout on the probabilities.
    """

    mask: Tensor

    def __init__(self, factory: Factory, name: str) -> None:
        super().__init__()
        args = factory.args
        self.heads = args.num_attention_heads // factory.parallel.layout.tp  # a/tp
        self.width = args.hidden_size // args.num_attention_heads  # d
        self.dropout = Dropout(factory, args.attention_dropout, MODEL_PARALLEL)
        # Rows are ordered head by head as (q, k, v), so that a cut over TP is a cut between heads.
        self.linear_qkv = ColumnParallelLinear(
            factory, f"{name}.linear_qkv", args.hidden_size, 3 * args.hidden_size
        )
        self.linear_proj = RowParallelLinear(
            factory, f"{name}.linear_proj", args.hidden_size, args.hidden_size
        )
        mask = torch.ones(args.seq_length, args.seq_length, dtype=torch.bool).triu(1)  # [s, s]
        self.register_buffer("mask", mask.to(factory.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.linear_qkv(x)  # [s, b, 3*h/tp]
        s, b, _ = qkv.shape
        parts = qkv.view(s, b, self.heads, 3, self.width)  # [s, b, a/tp, 3, d]
        q, k, v = (
            part.permute(1, 2, 0, 3).reshape(b * self.heads, s, self.width) for part in parts.unbind(3)
        )  # each [b*a/tp, s, d]
        scores = torch.bmm(q, k.transpose(1, 2)).float() / math.sqrt(self.width)  # [b*a/tp, s, s]
        probs = scores.masked_fill(self.mask[:s, :s], float("-inf")).softmax(-1).to(x.dtype)
        probs = self.dropout(probs)  # [b*a/tp, s, s]
        context = torch.bmm(probs, v).view(b, self.heads, s, self.width)  # [b, a/tp, s, d]
        merged = context.permute(2, 0, 1, 3).reshape(s, b, self.heads * self.width)  # [s, b, h/tp]
        y: Tensor = self.linear_proj(merged)  # [s(/tp), b, h]
        return y


class MLP(nn.Module):
    """Two linear layers around GELU, the inner width over TP. ``[s(/tp), b, h] → [s(/tp), b, h]``."""

    def __init__(self, factory: Factory, name: str, inner: int) -> None:
        super().__init__()
        hidden = factory.args.hidden_size
        self.linear_fc1 = ColumnParallelLinear(factory, f"{name}.linear_fc1", hidden, inner)
        self.linear_fc2 = RowParallelLinear(factory, f"{name}.linear_fc2", inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.gelu(self.linear_fc1(x))  # [s, b, f/tp]
        y: Tensor = self.linear_fc2(inner)  # [s(/tp), b, h]
        return y


class TransformerLayer(nn.Module):
    """Pre-norm layer: attention, then MLP or experts. ``[s(/tp), b, h] → [s(/tp), b, h]``.

    Each has dropout on the residual.
    """

    def __init__(self, factory: Factory, index: int) -> None:
        super().__init__()
        args, name = factory.args, f"decoder.layers.{index}"
        self.input_layernorm = LayerNorm(factory, f"{name}.input_layernorm")
        self.self_attention = SelfAttention(factory, f"{name}.self_attention")
        self.pre_mlp_layernorm = LayerNorm(factory, f"{name}.pre_mlp_layernorm")
        self.mlp: nn.Module
        if args.num_experts:
            shared = args.moe_shared_expert_intermediate_size
            shared_expert = MLP(factory, f"{name}.mlp.shared_experts", shared) if shared else None
            self.mlp = MoELayer(factory, f"{name}.mlp", shared_expert)
        else:
            self.mlp = MLP(factory, f"{name}.mlp", args.ffn_hidden_size)
        self.dropout = Dropout.hidden(factory)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attention(self.input_layernorm(x)))
        y: Tensor = x + self.dropout(self.mlp(self.pre_mlp_layernorm(x)))
        return y


class Embedding(nn.Module):
    """Token plus learned position embedding, with dropout. ``[b, s] → [s(/tp), b, h]``."""

    def __init__(self, factory: Factory) -> None:
        super().__init__()
        args = factory.args
        self.tp, self.sequence_parallel = factory.parallel.tp, args.sequence_parallel
        self.word_embeddings = VocabParallelEmbedding(factory, TIED_SOURCE)
        self.position_embeddings = factory.parameter(
            "embedding.position_embeddings.weight",
            (args.max_position_embeddings, args.hidden_size),
            std=args.init_method_std,
            edge=True,
        )
        self.dropout = Dropout.hidden(factory)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.word_embeddings(tokens)  # [s, b, h]
        x = x + self.position_embeddings[: x.shape[0]].unsqueeze(1)  # [s, b, h] + [s, 1, h]
        if self.sequence_parallel:
            x = mappings.split_rows(x, self.tp)  # [s/tp, b, h]
        y: Tensor = self.dropout(x)
        return y


class OutputLayer(nn.Module):
    """Logits over the vocabulary, cut over TP. ``[s(/tp), b, h] → [s, b, v/tp]``.

    Args:
        tied: the embedding's own weight where it lives on this stage; else the copy that the last
            stage keeps equal to it, or (untied) a weight of its own.
    """

    def __init__(self, factory: Factory, tied: nn.Parameter | None) -> None:
        super().__init__()
        args, self.tp = factory.args, factory.parallel.tp
        self.sequence_parallel = args.sequence_parallel
        self.vocab = VocabRange.of(args, self.tp)
        untied = args.untie_embeddings_and_output_weights
        self.weight = (
            tied
            if tied is not None
            else factory.parameter(
                TIED_COPY,
                (args.vocab_size, args.hidden_size),
                std=args.init_method_std,
                rows=(self.vocab.first, self.vocab.padded),
                edge=True,
                tied_copy=not untied,
                values_of=None if untied else TIED_SOURCE,
            )
        )  # [v/tp, h]

    def forward(self, x: Tensor) -> Tensor:
        x = mappings.into_tensor_parallel(x, self.tp, sequence_parallel=self.sequence_parallel)  # [s, b, h]
        return F.linear(x, self.weight)


class GPTChunk(nn.Module):
    """The layers that one (virtual) pipeline stage holds, with embedding and loss at the ends.

    ``forward(x, labels)``: ``x`` is tokens ``[b, s]`` on the first chunk and activations
    ``[s(/tp), b, h]`` elsewhere; returns activations, or on the last chunk the mean loss over the
    micro-batch's tokens (float32 scalar).
    """

    def __init__(self, factory: Factory, layers: range, *, first: bool, last: bool) -> None:
        super().__init__()
        args = factory.args
        self.first, self.last = first, last
        self.embedding = Embedding(factory) if first else None
        self.layers = nn.ModuleList(TransformerLayer(factory, i) for i in layers)
        self.final_layernorm = LayerNorm(factory, "decoder.final_layernorm") if last else None
        self.output_layer = None
        if last:
            tie = self.embedding is not None and not args.untie_embeddings_and_output_weights
            tied = self.embedding.word_embeddings.weight if tie and self.embedding else None
            self.output_layer = OutputLayer(factory, tied)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        if self.embedding is not None:
            x = self.embedding(x)  # [s(/tp), b, h]
        for layer in self.layers:
            x = layer(x)  # [s(/tp), b, h]
        if self.output_layer is None or self.final_layernorm is None or labels is None:
            return x
        logits = self.output_layer(self.final_layernorm(x))  # [s, b, v/tp]
        losses = vocab_parallel_cross_entropy(
            logits, labels.t(), self.output_layer.tp, self.output_layer.vocab
        )  # [s, b]
        return losses.mean()  # []


def build_chunks(factory: Factory) -> list[GPTChunk]:
    """This rank's model chunks; layers are dealt round-robin over virtual stages, as in Megatron-LM."""
    args, layout = factory.args, factory.parallel.layout
    stages = layout.pp * layout.vp
    per = args.num_layers // stages
    chunks = []
    for v in range(layout.vp):
        stage = v * layout.pp + layout.pp_rank
        chunks.append(
            GPTChunk(
                factory,
                range(stage * per, (stage + 1) * per),
                first=stage == 0,
                last=stage == stages - 1,
            )
        )
    return chunks
