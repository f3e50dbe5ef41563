"""Regular expressions that a case brings along, to find metrics in what a script prints.

They meet lines of any length that nobody has looked at, so they are RE2's: its time is linear in the line,
whatever the expression, and no clock has to stop it. It knows neither lookaround nor references back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

#: The group that holds the step; as in ``metrics.jsonl``.
STEP_GROUPS = ("step", "iteration")
_LIMIT = 4096  # characters; the longest that anybody reads
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Expression:
    """A regular expression with a group for the step and one for each metric.

    Args:
        text: as it was written.
        step: the name of the group that holds the step.
        metrics: names of the other groups, which are the metrics'.
        pattern: RE2's.
    """

    text: str
    step: str
    metrics: tuple[str, ...]
    pattern: Any

    @classmethod
    def of(cls, text: str) -> Expression:
        """Compile it.

        Raises:
            ValueError: what was found and what was expected, in a sentence.
        """
        if len(text) > _LIMIT:
            raise ValueError(f"found {len(text)} characters, expected a regular expression of up to {_LIMIT}")
        try:
            pattern = _compiled(text)
        except ValueError as error:
            raise ValueError(f"found {text!r}, expected a regular expression (RE2): {error}") from None
        groups = sorted(pattern.groupindex, key=pattern.groupindex.get)
        steps = [name for name in groups if name in STEP_GROUPS]
        metrics = tuple(name for name in groups if name not in STEP_GROUPS)
        if len(steps) != 1:
            wanted = " or ".join(f"(?P<{name}>…)" for name in STEP_GROUPS)
            raise ValueError(f"found {text!r}, expected one group {wanted} for the number of a step")
        if not metrics:
            said = "expected a named group for each metric too, such as (?P<loss>…)"
            raise ValueError(f"found {text!r}, {said}")
        return cls(text, steps[0], metrics, pattern)

    def found(self, line: str) -> dict[str, str | None] | None:
        """What the groups hold at the first place in ``line`` that matches; None where none does."""
        match = self.pattern.search(line)
        groups: dict[str, str | None] | None = match.groupdict() if match else None
        return groups

    def cut(self, line: str) -> tuple[str, str] | None:
        r"""A group that holds only a part of a number, and the whole number; None where there is none.

        ``(?P<loss>\d+)`` of ``loss: 0.25`` is 0, and of ``.*(?P<loss>[.\d]+)`` the first part is gone: that
        would be compared, and be the same whatever the loss was.
        """
        match = self.pattern.search(line)
        for name in (self.step, *self.metrics) if match else ():
            start, end = match.span(self.pattern.groupindex[name])
            begin = start
            if line[start:end][:1] in set("0123456789."):
                head = line[:start]
                begin -= len(head[len(head.rstrip("0123456789.")) :].lstrip("."))
            number = _NUMBER.match(line, begin)
            if number is None or number.end() <= start or (begin == start and number.end() <= end):
                continue
            if not _equal(line[start:end], number[0]):  # 20 of 0020, of 20.0 and at a sentence's end is 20
                return name, number[0]
        return None


def _equal(part: str, whole: str) -> bool:
    try:
        return float(part) == float(whole)
    except ValueError:
        return False


def _compiled(text: str) -> Any:  # noqa: ANN401 - the library has no types
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        (said,) = error.args or ("",)
        said = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        if re.search(r"\(\?<?[=!]|\\[1-9]|\(\?P=|\(\?>", text):
            said += "; RE2 has no lookaround and no references back"
        raise ValueError(said) from None
    except UnicodeEncodeError:
        raise ValueError("half a character") from None
