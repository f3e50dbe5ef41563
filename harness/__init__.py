"""Prove that distributed LLM training survives being stopped and resumed.

A training script without a log of its own needs two lines, and nothing but the standard library::

    import harness
    harness.log(step, loss=loss, lr=lr)
"""

from __future__ import annotations

import json
import os
from typing import SupportsFloat

__version__ = "0.1.0"

#: The file of :func:`log`, in the environment of a script that ``harness run`` started.
LOG_VARIABLE = "HARNESS_METRICS"


def log(step: int, /, **metrics: SupportsFloat) -> None:
    """Log values of a step, counted from 1, where ``harness run`` started the script; else do nothing.

    Of several processes the one logs whose ``RANK`` is 0. A line is on the disk when this returns.

    Args:
        step: how many steps are done.
        metrics: by name: numbers, and whatever ``float`` takes, a tensor of one element among it.

    Raises:
        TypeError: a step that is no whole number, a metric of that name, a value that is no number.
        ValueError: a tensor of several elements.
    """
    path = os.environ.get(LOG_VARIABLE)
    if not path or os.environ.get("RANK", "0") != "0":
        return
    if int(step) != step:
        raise TypeError(f"harness.log: the step is {step!r}, expected a whole number")
    if "step" in metrics:
        raise TypeError("harness.log: a metric is named step, expected another name: the step comes first")
    line: dict[str, int | float] = {"step": int(step)}
    for name, value in metrics.items():
        if isinstance(value, str):
            raise TypeError(f"harness.log: {name} is {value!r}, expected a number")
        number = value.item() if hasattr(value, "item") else value  # of a tensor with a gradient too
        line[name] = number if type(number) is int else float(number)  # whole ones stay exact
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
