"""Curves, state diffs and the diagnosis of a resume that has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.checkpoints import Gap, StateDiff, TensorDiff
from harness.checks import Check, compare_curves
from harness.diagnosis import Diagnosis, diagnose
from harness.metrics import Series
from harness.protocol.continuation import before, went_on

K, N = 50, 100
Curves = dict[str, Callable[[int], float]]
#: A run that is as it should be.
RIGHT: Curves = {
    "lm loss": lambda i: 10.0 / (1 + i) + math.sin(i),
    "grad-norm": lambda i: 2.0 + math.cos(i),
    "params-norm": lambda i: 13.0 + 0.01 * i,
    "learning-rate": lambda i: 0.01 * min(1.0, i / 50),
    "batch-digest": lambda i: float(i * 7919 % 100003),
    "consumed-samples": lambda i: 4.0 * i,
    "loss-scale": lambda i: 1024.0,
}


def series(curves: Curves, first: int = 1, last: int = N) -> dict[str, Series]:
    steps = np.arange(first, last + 1)
    return {name: Series(name, steps, np.array([f(int(i)) for i in steps])) for name, f in curves.items()}


def off(curve: str, since: int) -> Curves:
    """Curves of which one is off from an iteration on, and all that it decides from the next one on."""
    order = ["lm loss", "grad-norm", "params-norm"]
    found = dict(RIGHT)

    def moved(right: Callable[[int], float], start: int) -> Callable[[int], float]:
        return lambda i: right(i) * (1.01 if i >= start else 1.0)

    for name in order:
        same = curve in order and order.index(name) >= order.index(curve)
        found[name] = moved(RIGHT[name], since if same else since + 1)
    if curve not in order:
        found[curve] = moved(RIGHT[curve], since)
    return found


def differs(name: str, component: str, **what: Any) -> TensorDiff:
    about: dict[str, Any] = {
        "reason": "values",
        "elements": 8,
        "differing": 8,
        "max_abs": 0.5,
        "a": 0.25,
        "b": 0.75,
    }
    return TensorDiff(name, component, **{**about, **what})


def state(
    *entries: TensorDiff, gaps: Sequence[Gap] = (), names: Mapping[str, int] | None = None
) -> StateDiff:
    return StateDiff("a", "b", entries, compared=20, gaps_a=tuple(gaps), names=names or {})


EQUAL = state()


def lost(
    curves: Curves,
    *,
    probe: StateDiff | None = EQUAL,
    end: StateDiff | None = None,
    first: int = K + 1,
    last: int = N,
    more: Sequence[Check] = (),
    arguments: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """The diagnosis of a resume with these curves."""
    continuous, resumed = series(RIGHT), series(curves, first, last)
    checks = compare_curves(continuous, resumed, against="continuous", lane="exact", first=K + 1, last=N)
    gone_on = went_on(resumed, before(continuous, K), continuous, K, trained_again=True)
    found = diagnose(
        [*checks, gone_on.check, *more],
        continuous=continuous, resumed=resumed, k=K, n=N, state=end, probe=probe, deterministic=True,
        arguments=arguments,
    )  # fmt: skip
    assert found is not None
    return found
