"""Which runner a job of CI asks for: labels of GitHub's, tags of GitLab's. Standard library only."""

from __future__ import annotations

import json
import re

from harness.errors import UsageError

#: What stands for a name in a template.
_PLACES = ("{hardware}", "{track}")
_LEFT = re.compile(r"[{}]")


def read_template(text: str, option: str) -> tuple[str, ...]:
    """A JSON list of words, in which ``{hardware}`` and ``{track}`` stand for the job's names.

    Args:
        text: the list.
        option: which option holds it, for the message.

    Raises:
        UsageError: it is none.
    """
    expected = 'expected a JSON list of words such as ["self-hosted", "gpu", "{hardware}"]'
    try:
        words = json.loads(text)
    except ValueError:
        raise UsageError(f"{option} {text!r}: is not JSON, {expected}") from None
    if not isinstance(words, list) or not all(isinstance(one, str) and one.strip() for one in words):
        raise UsageError(f"{option} {text!r}: {expected}")
    return tuple(check_template(word, option) for word in words)


def check_template(word: str, option: str) -> str:
    """A word of a template, as it is; raises UsageError for braces that stand for nothing."""
    if _LEFT.search(filled(word, "", "")):
        raise UsageError(f"{option}: found {word!r}, expected no braces but {' and '.join(_PLACES)}")
    return word


def filled(word: str, hardware: str, track: str) -> str:
    """A word of a template, for a job."""
    return word.replace("{hardware}", hardware).replace("{track}", track)
