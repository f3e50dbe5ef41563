"""Text that leaves the harness: hidden characters made visible, numbers in words, JSON that all can read.

Standard library only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

#: Control characters, surrogates and direction overrides: they would rewrite the screen around them.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def printable(text: object) -> str:
    """Untrusted text that can do nothing to a terminal or a page: what is hidden is spelled out."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), str(text))


def one_line(text: object) -> str:
    """The same, without line ends."""
    return " ".join(printable(text).split())


def duration(seconds: float) -> str:
    """``0.4 s``, ``13.7 s``, ``2 min 5 s``, ``1 h 40 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(amount: float) -> str:
    """``512 B``, ``1.1 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def short(value: float) -> str:
    """A number for a narrow column; exact ones stand elsewhere."""
    return f"{value:.5g}"


def exact(value: float | str | None) -> str:
    """A value of a check, all its digits; empty for none."""
    return "" if value is None else printable(value)


def count(number: int, noun: str) -> str:
    """``1 step``, ``3 steps``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def strict_json(content: object) -> str:
    """A JSON document with a line end; NaN and infinity, which JSON has not, as words."""
    return json.dumps(_strict(content), indent=1, allow_nan=False, default=str) + "\n"


def _strict(value: Any) -> Any:  # noqa: ANN401 - anything that JSON can hold
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return value
