"""Arguments by name → the words of a command line, as Megatron-LM's scripts make them, without a shell."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from harness.errors import CaseError

#: A value is text, True (a bare flag), False (leave it out), or a tuple of texts.
Arguments = Mapping[str, Any]

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$([A-Za-z_][A-Za-z0-9_]*)")
_IN_BRACKETS = re.compile(r"\[[^\]]+\]")


def to_argv(arguments: Arguments) -> list[str]:
    """Arguments as words, as Megatron-LM's scripts make them.

    ``true`` is a bare flag, ``false`` (ours, for profiles) and an empty text leave the argument out,
    ``[a b]`` is split. Any other text stays one word, without the quotes that may be inside it.
    """
    words: list[str] = []
    for key, value in arguments.items():
        if value is False or value == "":
            continue
        words.append(key)
        if isinstance(value, tuple):
            words += value
        elif isinstance(value, str):
            words += _split(value)
    return words


def _split(text: str) -> list[str]:
    """One argument's text as words; none for a flag."""
    with contextlib.suppress(ValueError):  # quotes that do not match are kept
        text = " ".join(shlex.split(text))
    if text == "true":
        return []
    return text[1:-1].split() if _IN_BRACKETS.fullmatch(text) else [text]


def substitute(words: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """Replace ``${NAME}`` (and ``$NAME``) in each word; a word stays one word.

    Raises:
        CaseError: a name that has no value.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in values:
            raise CaseError(
                f"{match[0]}: {name} has no value here", f"set {name} in the environment, or in the case"
            )
        return values[name]

    return [_PLACEHOLDER.sub(value, word) for word in words]
