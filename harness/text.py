"""Text that leaves the harness: nothing hidden in it, no command to GitHub; numbers in words, JSON for all.

Standard library only.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import IO, Any, cast

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


#: What GitHub's runner takes for a command: the first where a line begins with it, the second anywhere.
_COMMAND, _OLD_COMMAND = "::", "##["


def for_log(text: str) -> str:
    """Whole lines for a log: in one of GitHub's Actions no line of it is a command; elsewhere as it is."""
    return _without_commands(text, "")[0] if _in_actions() else text


def guarded(stream: IO[str]) -> IO[str]:
    """``stream``, or in one of GitHub's Actions one that writes to it and takes commands for text.

    Commands of our own have to be written to the stream itself.
    """
    wanted = _in_actions() and not isinstance(stream, _Guarded)
    return cast("IO[str]", _Guarded(stream)) if wanted else stream


class _Guarded:
    """Writes to a stream; whatever else is asked of it, the stream answers."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._line = stream, ""

    def write(self, text: str) -> int:
        said, self._line = _without_commands(text, self._line)
        self._stream.write(said)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a stream has many
        return getattr(self._stream, name)


def _in_actions() -> bool:
    return bool(os.environ.get("GITHUB_ACTIONS"))


def _without_commands(text: str, before: str) -> tuple[str, str]:
    """A space inside of whatever would be a command.

    Args:
        before: what stands in the line already.

    Returns:
        The text, and what now stands in its last line.
    """
    said = []
    for part in re.split(r"(?<=[\r\n])", text):
        line = before + part
        for command in (_COMMAND, _OLD_COMMAND):
            at = line.find(command)
            while at >= 0 and (command == _OLD_COMMAND or _blank(line[:at])):
                middle = max(at + 1, len(before))
                line = f"{line[:middle]} {line[middle:]}"
                at = line.find(command)
        said.append(line[len(before) :])
        before = "" if line.endswith(("\r", "\n")) else line
    return "".join(said), before


def _blank(text: str) -> bool:
    """Whether nothing of it is seen: the runner passes over what has no width, too."""
    return all(char.isspace() or not char.isprintable() for char in text)


def utc_now() -> str:
    """``2026-11-27T01:02:03Z``."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


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
