"""A language model small enough to be trained a thousand times: what can a check tell from noise?

Two-token context, embedding, one hidden layer, dropout, Adam with warm-up and cosine decay, in numpy.
Rounding of another machine, or of a nondeterministic kernel, is put in as relative noise on the hidden
layer and on every gradient: about 1e-7 for float32, 1e-3 for bfloat16. It then grows, or not, as it would
in any training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics import Series

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """What is trained.

    Args:
        steps: iterations.
        lr: highest learning rate.
        rounding: relative noise on the elements of the hidden layer and of each gradient.
        seed: of weights, data and dropout.
        noise_seed: of the rounding.
        lr_factor: what the learning rate is multiplied with after ``after`` steps.
        skipped: batches left out after ``after`` steps.
        after: when the two begin.
        dropout_seed: added to ``seed`` for dropout alone: another device's random stream.
    """

    steps: int = 100
    lr: float = 1e-2
    rounding: float = 1e-7
    seed: int = 0
    noise_seed: int = 0
    lr_factor: float = 1.0
    skipped: int = 0
    after: int = 0
    dropout_seed: int = 0


VOCABULARY, WIDTH, HIDDEN, BATCH = 32, 16, 64, 64
_DROPOUT = 0.1


def train(recipe: Recipe) -> dict[str, Series]:
    """The series of one run, as float32 values."""
    data, start = np.random.default_rng([recipe.seed, 1]), np.random.default_rng([recipe.seed, 2])
    masks = np.random.default_rng([recipe.seed, 3, recipe.dropout_seed])
    noise = np.random.default_rng([recipe.seed, 4, recipe.noise_seed])
    following = _language(data)
    weights = [
        start.normal(0, 1.0, (VOCABULARY, WIDTH)),
        start.normal(0, 1 / math.sqrt(2 * WIDTH), (2 * WIDTH, HIDDEN)),
        start.normal(0, 1 / math.sqrt(HIDDEN), (HIDDEN, VOCABULARY)),
    ]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    logged: dict[str, list[float]] = {
        name: [] for name in ("lm loss", "grad-norm", "params-norm", "num-zeros", "learning-rate")
    }
    for step in range(1, recipe.steps + 1):
        for _ in range(1 + (recipe.skipped if step == recipe.after + 1 else 0)):
            tokens = _batch(data, following)
        loss, grads = _backward(weights, tokens, masks, recipe.rounding, noise)
        if recipe.rounding:
            grads = [g * (1 + recipe.rounding * noise.standard_normal(g.shape)) for g in grads]
        warm = min(1.0, step / (0.1 * recipe.steps))
        rate = recipe.lr * warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps) + 0.1)
        rate *= recipe.lr_factor if step > recipe.after else 1.0
        norm = math.sqrt(sum(float((g * g).sum()) for g in grads))
        clip = min(1.0, 1.0 / (norm + 1e-6))
        for i, grad in enumerate(grads):
            first[i] += 0.1 * (grad * clip - first[i])
            second[i] += 0.01 * ((grad * clip) ** 2 - second[i])
            scale = rate / (1 - 0.9**step)
            weights[i] = weights[i] - scale * first[i] / (np.sqrt(second[i] / (1 - 0.99**step)) + 1e-8)
        logged["lm loss"].append(loss)
        logged["grad-norm"].append(norm)
        logged["params-norm"].append(math.sqrt(sum(float((w * w).sum()) for w in weights)))
        logged["num-zeros"].append(float(sum(int((np.abs(g) < 1e-6).sum()) for g in grads)))
        logged["learning-rate"].append(rate)
    steps = np.arange(1, recipe.steps + 1)
    return {
        name: Series(name, steps, np.array(values, np.float32).astype(np.float64))
        for name, values in logged.items()
    }


def _language(rng: np.random.Generator) -> Array:
    """For each pair of tokens, the cumulative probabilities of the next."""
    odds = rng.gamma(0.05, size=(VOCABULARY, VOCABULARY))
    return np.asarray(np.cumsum(odds / odds.sum(1, keepdims=True), axis=1))


def _batch(rng: np.random.Generator, following: Array) -> NDArray[np.int64]:
    """(BATCH, 3) tokens: two of context and the next."""
    tokens = rng.integers(VOCABULARY, size=(BATCH, 3))
    for position in (1, 2):
        draw = rng.random((BATCH, 1))
        tokens[:, position] = np.minimum((following[tokens[:, position - 1]] < draw).sum(1), VOCABULARY - 1)
    return tokens


def _backward(
    weights: list[Array],
    tokens: NDArray[np.int64],
    masks: np.random.Generator,
    rounding: float,
    noise: np.random.Generator,
) -> tuple[float, list[Array]]:
    """Mean cross entropy, and the gradients of it."""
    embedding, inner, outer = weights
    inputs = embedding[tokens[:, :2]].reshape(BATCH, 2 * WIDTH)
    before = inputs @ inner
    kept = (masks.random(before.shape) >= _DROPOUT) / (1 - _DROPOUT)
    hidden = np.maximum(before, 0) * kept
    if rounding:
        hidden *= 1 + rounding * noise.standard_normal(hidden.shape)
    logits = hidden @ outer
    logits -= logits.max(1, keepdims=True)
    odds = np.exp(logits)
    odds /= odds.sum(1, keepdims=True)
    rows = np.arange(BATCH)
    loss = -float(np.log(odds[rows, tokens[:, 2]]).mean())
    odds[rows, tokens[:, 2]] -= 1
    odds /= BATCH
    d_hidden = (odds @ outer.T) * kept * (before > 0)
    d_inputs = (d_hidden @ inner.T).reshape(BATCH, 2, WIDTH)
    d_embedding = np.zeros_like(embedding)
    np.add.at(d_embedding, tokens[:, :2], d_inputs)
    return loss, [d_embedding, inputs.T @ d_hidden, hidden.T @ odds]
