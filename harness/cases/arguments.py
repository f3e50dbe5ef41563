"""Arguments by name → the words of a command line, as Megatron-LM's scripts make them, without a shell."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from harness.errors import CaseError

#: A value is text, True (a bare flag), False (leave it out), or a tuple of texts.
Arguments = Mapping[str, Any]

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$([A-Za-z_][A-Za-z0-9_]*)")
_IN_BRACKETS = re.compile(r"\[[^\]]+\]")
#: What the scripts put into double quotes before their ``eval``: a variable in it is not split.
_QUOTED = re.compile(r"[ |()]")
_BETWEEN = "\0"  # no variable holds one


def to_argv(arguments: Arguments) -> list[str]:
    """Arguments as words, as Megatron-LM's scripts make them.

    ``true`` is a bare flag, ``false`` (ours, for profiles) and an empty text leave the argument out,
    ``[a b]`` is split. Any other text stays one word, without the quotes that may be inside it.
    """
    return [word for key, value in arguments.items() for word, _ in _words(key, value)]


def expanded(
    arguments: Arguments, values: Mapping[str, str], own: Collection[str] = (), *, joined: bool = False
) -> list[str]:
    """The same with the value of each ``${NAME}`` in it.

    Args:
        arguments: by name.
        values: what the names stand for.
        own: names that only the case's ENV_VARS set. The scripts leave these to ``eval``, which splits them
            at white space where they stand outside of quotes; others are in the file before it is read.
        joined: ``key=value`` in one word, as the scripts have it for NeMo.

    Raises:
        CaseError: a name that has no value.
    """
    found: list[str] = []
    for key, value in arguments.items():
        parts = _words(key, value)
        if not parts:
            continue
        words = [one for word, quoted in parts[1:] for one in _fields(word, values, () if quoted else own)]
        found += ["=".join([key, *words[:1]]), *words[1:]] if joined else [key, *words]
    return found


def _words(key: str, value: Any) -> list[tuple[str, bool]]:  # noqa: ANN401 - as a case has it
    """The key and the words of its value, each with whether the scripts quote it."""
    if value is False or value == "":
        return []
    # ``[a b]`` without quotes is a list of one text to YAML, and two words to the scripts.
    words = [(part, False) for word in value for part in word.split()] if isinstance(value, tuple) else []
    if isinstance(value, str):
        words = _split(value)
    return [(key, True), *words]


def _split(text: str) -> list[tuple[str, bool]]:
    """One argument's text as words; none for a flag."""
    with contextlib.suppress(ValueError):  # quotes that do not match are kept
        text = " ".join(shlex.split(text))
    # Older scripts evaluate such a text outside of quotes, and their cases write `Et*3\\|t` for `Et*3|t`.
    text = re.sub(r"\\([|()])", r"\1", text)
    if text == "true":
        return []
    if _IN_BRACKETS.fullmatch(text):
        return [(word, False) for word in text[1:-1].split()]
    return [(text, bool(_QUOTED.search(text)))]


def variables(own: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """ENV_VARS with the value of each ``${NAME}`` in them: of ``values``, or of a variable above it.

    Raises:
        CaseError: a name that has no value.
    """
    found: dict[str, str] = {}
    for name, text in own.items():
        found[name] = substitute([text], {**found, **values})[0]
    return found


def substitute(words: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """Replace ``${NAME}`` (and ``$NAME``) in each word; a word stays one word.

    Raises:
        CaseError: a name that has no value.
    """
    return [_PLACEHOLDER.sub(lambda match: _value(match, values), word) for word in words]


def _fields(word: str, values: Mapping[str, str], split: Collection[str]) -> list[str]:
    """A word with its names replaced; the values of those in ``split`` end it where they hold white space."""

    def value(match: re.Match[str]) -> str:
        found = _value(match, values)
        return re.sub(r"[ \t\n]+", _BETWEEN, found) if (match[1] or match[2]) in split else found

    made = _PLACEHOLDER.sub(value, word)
    return [field for field in made.split(_BETWEEN) if field] if split else [made]


def _value(match: re.Match[str], values: Mapping[str, str]) -> str:
    name = match[1] or match[2]
    if name not in values:
        raise CaseError(
            f"{match[0]}: {name} has no value here", f"set {name} in the environment, or in the case"
        )
    return values[name]
