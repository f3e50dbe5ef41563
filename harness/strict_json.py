"""JSON as every reader takes it: NaN and infinity, which JSON has not, as words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def strict_json(content: object) -> str:
    """A document with a line end; what is neither text, number, list nor mapping as its text."""
    return json.dumps(_strict(content), indent=1, allow_nan=False, default=str) + "\n"


def _strict(value: Any) -> Any:  # noqa: ANN401 - anything that JSON can hold
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return value
