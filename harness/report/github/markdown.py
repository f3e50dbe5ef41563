"""Untrusted text in GitHub's Markdown: no mention, no link, no markup, no line of its own."""

from __future__ import annotations

import re

from harness.text import one_line, printable

_BACKTICKS = re.compile("`+")


def code(text: object) -> str:
    """One line as inline code, in which GitHub links nothing and notifies nobody."""
    line = one_line(text)
    if not line:
        return ""
    fence = "`" * _longer_than_inside(line)
    # The inner spaces are taken off again when there is one on both sides.
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def column(text: object) -> str:
    """The same for a cell of a table, where a bar would end the cell, code or not."""
    return code(text).replace("|", "\\|")


def block(text: object, language: str = "") -> str:
    """Lines as a block of code."""
    lines = printable(text)
    fence = "`" * max(3, _longer_than_inside(lines))
    return f"{fence}{language}\n{lines}\n{fence}"


def title(text: object, limit: int = 256) -> str:
    """One line for an issue's title, which GitHub shows as it is; cut at its limit."""
    return cut(one_line(text), limit)


def cut(text: str, limit: int) -> str:
    """At most ``limit`` characters; what was cut off is said."""
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"


def _longer_than_inside(text: str) -> int:
    return max((len(run) for run in _BACKTICKS.findall(text)), default=0) + 1
