"""Messages over a channel that only lines of less than 1000 bytes come through whole.

A message is JSON in ASCII, cut into pieces; each is a line, of which the first character tells whether more
follows. Slurm's srun tears longer lines apart (22.05: at 1024 bytes).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

#: Bytes of a line, its end and what srun puts before it (``1234: ``) left out.
PIECE = 900
_MORE, _LAST = "+", "."


def packed(message: dict[str, Any]) -> bytes:
    """A message as lines."""
    text = json.dumps(message)
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    lines = [_MORE + piece for piece in pieces[:-1]] + [_LAST + pieces[-1]]
    return "".join(f"{line}\n" for line in lines).encode("ascii")


class Unpacker:
    """Lines of one sender, put together again."""

    def __init__(self) -> None:
        self._bytes, self._pieces = b"", list[str]()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """What has become whole with ``data``, in whatever pieces that came."""
        *lines, self._bytes = (self._bytes + data).split(b"\n")
        for line in lines:
            found = self.line(line.decode("ascii", errors="replace"))
            if found is not None:
                yield found

    def line(self, line: str) -> dict[str, Any] | None:
        """The message that ``line`` is the last piece of; what is no piece of any is passed over."""
        if line[:1] not in (_MORE, _LAST):
            return None
        self._pieces.append(line[1:])
        if line[0] == _MORE:
            return None
        text, self._pieces = "".join(self._pieces), []
        try:
            found = json.loads(text)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None
