"""What a pytest start of theirs compares: two JSON files, model by model and step by step."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel


class Metric(BaseModel):
    """One metric of a golden."""

    start_step: int
    end_step: int
    step_interval: int
    values: dict[int, float]


def test_curves_agree() -> None:
    """Later steps of the second file are those of the first, to five decimals."""
    one, two = (
        {name: Metric(**metric) for name, metric in json.loads(Path(os.environ[key]).read_text()).items()}
        for key in ("FIRST", "SECOND")
    )
    for name in ("lm loss", "num-zeros"):
        for step, value in two[name].values.items():
            assert value == one[name].values[step]
