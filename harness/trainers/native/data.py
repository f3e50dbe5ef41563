"""A seeded synthetic corpus, and a sampler that knows how far it has come.

The corpus is a Markov chain over the vocabulary: each token has four likely successors, so a model
that learns anything sees its loss fall. It is cut into samples of ``seq_length + 1`` tokens, in one
order a sample, in a new order every epoch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.errors import CaseError
from harness.trainers.native.arguments import Arguments
from harness.trainers.native.pipeline import Batch

_SUCCESSORS = 4
_NOISE = 0.1


def make_corpus(args: Arguments) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Token ids, int64; they depend on the vocabulary's size and the corpus's length only."""
    random = np.random.Generator(np.random.PCG64([20231, args.vocab_size]))
    table = random.integers(0, args.vocab_size, (args.vocab_size, _SUCCESSORS))
    choice = random.integers(0, _SUCCESSORS, args.corpus_tokens)
    strays = random.integers(0, args.vocab_size, args.corpus_tokens)
    stray = random.random(args.corpus_tokens) < _NOISE
    tokens = np.empty(args.corpus_tokens, np.int64)
    last = 0
    for i in range(args.corpus_tokens):
        last = int(strays[i]) if stray[i] else int(table[last, choice[i]])
        tokens[i] = last
    return tokens  # [args.corpus_tokens]


class Sampler:
    """Sample indices in epoch order. State: samples consumed, and the epoch and position they mean."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.consumed, self.epoch, self.position = 0, 0, 0
        self._order = self._shuffle()

    def _shuffle(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        random = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        return random.permutation(self.size)  # [self.size]

    def take(self, count: int) -> list[int]:
        """The next ``count`` sample indices, over an epoch's end where need be."""
        taken = []
        for _ in range(count):
            if self.position == self.size:
                self.epoch += 1
                self.position = 0
                self._order = self._shuffle()
            taken.append(int(self._order[self.position]))
            self.position += 1
        self.consumed += count
        return taken  # [count]

    def state(self) -> dict[str, int]:
        """Where the next sample comes from."""
        return {"consumed": self.consumed, "epoch": self.epoch, "position": self.position}

    def restore(self, state: dict[str, int]) -> None:
        """Continue at the sample after the last one taken."""
        self.consumed = int(state["consumed"])
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._order = self._shuffle()


@dataclass
class Split:
    """One part of the corpus with its sampler."""

    tokens: np.ndarray[Any, np.dtype[np.int64]]
    sampler: Sampler
    length: int

    def sample(self, index: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Tokens of a sample: inputs and, one on, labels."""
        start = index * self.length
        return self.tokens[start : start + self.length + 1]  # [s+1]


class Data:
    """Training and validation batches of one data-parallel rank."""

    def __init__(self, args: Arguments, dp_rank: int, device: torch.device) -> None:
        self.args, self.dp_rank, self.device = args, dp_rank, device
        corpus = make_corpus(args)
        weights = [float(part) for part in args.split.split(",")]
        total = sum(weights)
        edge = int(len(corpus) * weights[0] / total)
        second = edge + int(len(corpus) * (weights[1] if len(weights) > 1 else 0.0) / total)
        self.train = self._split("training", corpus[:edge], args.seed)
        validates = args.eval_iters > 0 and args.eval_interval <= args.train_iters
        self.valid = self._split("validation", corpus[edge:second], args.seed + 1) if validates else None

    def _split(self, what: str, tokens: np.ndarray[Any, np.dtype[np.int64]], seed: int) -> Split:
        length = self.args.seq_length
        size = (len(tokens) - 1) // length
        if size < 1:
            raise CaseError(
                f"--data-path {self.args.data_path}, --split {self.args.split}: the {what} part has "
                f"{len(tokens)} tokens, expected more than --seq-length {length}",
                "make the corpus longer",
            )
        return Split(tokens, Sampler(size, seed), length)

    def batch(self, split: Split, samples: int) -> tuple[list[Batch], list[int]]:
        """The next global batch: this rank's micro-batches, and a digest of each.

        Sample order is Megatron-LM's: micro-batch by micro-batch, within it by data-parallel rank.

        Returns:
            Micro-batches, and for each a digest of its tokens (unsigned 48 bits).
        """
        size, dp = self.args.micro_batch_size, self.args.data_parallel_size
        indices = split.sampler.take(samples)
        batches, digests = [], []
        for start in range(0, samples, size * dp):
            first = start + self.dp_rank * size
            rows = np.stack([split.sample(i) for i in indices[first : first + size]])  # [b, s+1]
            digests.append(int.from_bytes(hashlib.sha256(rows.tobytes()).digest()[:6], "big"))
            both = torch.from_numpy(rows).to(self.device)  # [b, s+1]
            batches.append(Batch(both[:, :-1].contiguous(), both[:, 1:].contiguous()))
        return batches, digests  # [m], [m]


def combine_digests(parts: list[int]) -> int:
    """24-bit digest of a global batch from its micro-batches' digests in order; exact in float32."""
    joined = b"".join(part.to_bytes(6, "big") for part in parts)
    return int.from_bytes(hashlib.sha256(joined).digest()[:3], "big")
