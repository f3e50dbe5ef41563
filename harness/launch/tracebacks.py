"""The exceptions that a log tells: Python's tracebacks, of one process or of many in one stream.

What stands before ``Traceback`` on its line (``[default1]:[rank1]: ``, ``3: ``, ``[1,3]<stderr>:``) tells one
process's lines from another's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from harness.errors import Frame, Raised
from harness.launch import peers

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
#: The first line: of a group, of a loader's worker (``Original``), of another rank (``(RANK 1)``).
_HEADER = re.compile(
    r"(?:\+ Exception Group |(?P<inner>Original ))?Traceback \(most recent call last\)(?::? ?\(RANK \d+\)|:)?"
)
_OF_RANK = re.compile(r"\(RANK \d+\)$")
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]{1,1000})", line (?P<line>\d{1,9}), in (?P<function>.{1,200})$')
_PLACE = re.compile(r'^\s*File "(?P<file>[^"]{1,1000})", line (?P<line>\d{1,9})$')
#: ``module.Class: message``; some classes are not written large (``struct.error``, ``socket.timeout``).
_RAISED = re.compile(r"^(?P<kind>[^\W\d]\w*(?:\.(?:\w+|<locals>))*)(?:: ?(?P<message>.*))?$")
_LEVELS: Final = frozenset({
    "INFO", "DEBUG", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL", "NOTE", "NOTICE", "wandb", "Epoch",
})  # fmt: skip
_SYNTAX: Final = ("SyntaxError", "IndentationError", "TabError")
_LINKS: Final = (
    ("The above exception was the direct cause of the following exception:", "caused by"),
    ("During handling of the above exception, another exception occurred:", "while handling"),
)
_UNRAISABLE = re.compile(r"^Exception ignored (?:in|while)\b")
_TAG = re.compile(r"^\[[A-Za-z_]*\d+\]:")
_RANKS = tuple(
    map(re.compile, (r"\[rank(\d+)\]", r"\[[A-Za-z_-]*(\d+)\]:", r"\[\d+,(\d+)\]<", r"^\s*(\d+): *$",
                     r"\brank[ =:]{0,2}(\d+)"))
)  # fmt: skip
#: Characters of a message, and of lines that it goes on over.
_LONGEST: Final = 600
_FRAMES: Final = 200
#: Lines of others within a traceback before it counts as torn.
_STRAY: Final = 200
#: How far off its next line may be, where others write between.
_NEAR: Final = 50


@dataclass(frozen=True)
class Told:
    """An exception that left its process's code, or was printed.

    Args:
        raised: it, with those that led to it.
        prefix: what stands before each of its lines.
        end: the number of the line that it ends on, from 0.
    """

    raised: Raised
    prefix: str
    end: int

    @property
    def rank(self) -> int | None:
        """Of which rank; None where its lines do not say."""
        for form in _RANKS:
            if found := form.search(self.prefix):
                return int(found[1][:9])
        return None


@dataclass
class _Block:
    """A traceback that is being read."""

    link: str
    ignored: bool
    frames: list[Frame] = field(default_factory=list)
    stray: int = 0


@dataclass
class _Stream:
    """The lines of one process."""

    told: list[Told | None] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)
    link: str = ""
    ignored: bool = False
    place: Frame | None = None
    box: bool = False


def plain(text: str) -> list[str]:
    """The lines of a log, without colours; what a progress bar has overwritten is lines of its own."""
    return [line for part in _ANSI.sub("", text).split("\n") for line in part.rstrip("\r").split("\r")]


def tells_of(lines: Sequence[str]) -> list[Told]:
    """Every exception whose traceback ends in these lines, in the order of their ends."""
    streams: dict[str, _Stream] = {"": _Stream()}
    for at, line in enumerate(lines):
        if header := _HEADER.search(line):
            prefix = _prefix(line[: header.start()], lines[at + 1 : at + 1 + _NEAR])
            stream = streams.setdefault(prefix, _Stream())
            _begin(stream, at, header)
            stream.box = "─" in line
            continue
        prefix = max((p for p in streams if p and line.startswith(p)), key=len, default="")
        if not prefix and _TAG.match(line):
            continue  # of a process that has raised nothing yet
        _read(streams[prefix], line[len(prefix) :], prefix, at)
    found = (told for stream in streams.values() for told in stream.told if told is not None)
    return sorted(found, key=lambda told: told.end)


def _prefix(before: str, following: Sequence[str]) -> str:
    """What stands before each line of a traceback, if it stands before one that follows, too."""
    return before if before.strip(" |─╭") and any(line.startswith(before) for line in following) else ""


def _begin(stream: _Stream, at: int, header: re.Match[str]) -> None:
    last = stream.told[-1] if stream.told else None
    inner = last is not None and at - last.end <= 4 and _holds_another(last.raised, header)
    stream.blocks.append(_Block("inner" if inner else stream.link, stream.ignored))
    stream.link, stream.ignored = "", False


def _holds_another(outer: Raised, header: re.Match[str]) -> bool:
    """Whether the traceback that follows is what the exception before it speaks of."""
    spawned = outer.kind.endswith("ProcessRaisedException")
    return spawned or bool(header["inner"]) or bool(_OF_RANK.search(header[0]))


def _read(stream: _Stream, line: str, prefix: str, at: int) -> None:
    text = re.sub(r"^ *[|│] ?", "", line).rstrip(" │")
    for words, link in _LINKS:
        if text.strip() == words:
            stream.link = link
            return
    if _UNRAISABLE.match(text):
        stream.ignored = True
    elif stream.blocks:
        _go_on(stream, text, prefix, at)
    elif stream.told and stream.told[-1] is not None and stream.told[-1].end == at - 1:
        _message_goes_on(stream, text, at)
    elif place := _PLACE.match(text):
        stream.place = Frame(place["file"], int(place["line"]), "<module>")
    elif stream.place and (found := _RAISED.match(text)) and found["kind"] in _SYNTAX:
        # The script itself cannot be compiled: Python writes no first line.
        stream.blocks.append(_Block("", ignored=False, frames=[stream.place]))
        _close(stream, found, prefix, at)


def _go_on(stream: _Stream, text: str, prefix: str, at: int) -> None:
    block = stream.blocks[0]
    place = _FRAME.match(text) or _PLACE.match(text)
    if place:
        name = place.groupdict().get("function") or "<module>"
        frame = Frame(place["file"], int(place["line"]), name.strip())
        for one in stream.blocks:  # of two that are mixed nobody knows whose it is
            one.frames = [*one.frames[-_FRAMES:], frame]
        return
    if text[:1].isspace():
        if block.frames and not block.frames[-1].source and text.strip(" ^~|"):
            for one in stream.blocks:
                one.frames[-1:] = [replace(one.frames[-1], source=text.strip()[:400])] if one.frames else []
        return
    found = _RAISED.match(text) if not text.startswith("╰") else None
    if found and found["kind"] not in _LEVELS and (block.frames or stream.box or block.link):
        _close(stream, found, prefix, at)
        return
    block.stray += 1
    if block.stray > _STRAY:
        del stream.blocks[0]


def _close(stream: _Stream, found: re.Match[str], prefix: str, at: int) -> None:
    block = stream.blocks.pop(0)
    raised = Raised(found["kind"], (found["message"] or "").strip()[:_LONGEST], tuple(block.frames))
    last = stream.told[-1] if stream.told else None
    if block.ignored:
        return
    if last is None or not block.link:
        stream.told.append(Told(raised, prefix, at))
    elif block.link == "inner":
        stream.told[-1] = replace(last, raised=_with_inner(last.raised, raised), end=at)
    else:
        stream.told[-1] = Told(replace(raised, cause=last.raised, link=block.link), prefix, at)
    stream.place = None


def _with_inner(outer: Raised, inner: Raised) -> Raised:
    if outer.kind.endswith("ProcessRaisedException"):
        return inner
    known = outer.cause
    # One of several ranks: the first that was not told of another's end.
    if known is not None and peers.suspicion_of(known) <= peers.suspicion_of(inner):
        return outer
    return replace(outer, cause=inner, link="caused by")


def _message_goes_on(stream: _Stream, text: str, at: int) -> None:
    last = stream.told[-1]
    assert last is not None
    raised = last.raised
    inner = raised.cause if raised.link == "caused by" and raised.cause and not raised.frames else None
    more = text.strip()
    if inner is not None or not more or not (text[:1].isspace() or not raised.message):
        return
    said = f"{raised.message} {more}".strip()[:_LONGEST]
    stream.told[-1] = replace(last, raised=replace(raised, message=said), end=at)


_WORDS = re.compile(
    r"(?i)\b(?:error|fatal|exception|killed|out of memory|oom|abort(?:ed)?|can't|cannot|could not|failed"
    r"|no such|no module|not found|denied|unrecognized|segmentation|terminat\w+)\b"
)
_WHAT = re.compile(r"^\s*what\(\):\s*(?P<what>.+)$")
_FAULT = re.compile(r"^Fatal Python error: .+$")
#: What a launcher says of itself, and lines that say nothing.
_NOISE = re.compile(
    r"^(?:[IWE]\d{4} \d\d:|\[?\d{4}-\d\d-\d\d[ T][\d:.,]+\] \[(?:INFO|WARNING)\]|[-=*─╭╰│\s]*$|\s+File "
    r"|\s*[\^~]+\s*$)"
)


def last_words(lines: Sequence[str]) -> str:
    """The line that says most of an end without a traceback; empty where there is no line."""
    tail = [line for line in lines[-400:] if not _NOISE.match(line)]
    stripped = [re.sub(r"^(?:\[[A-Za-z_]*\d+\]:)+ ?", "", line) for line in tail]
    for form in (_WHAT, _FAULT):
        for line in reversed(stripped):
            if found := form.match(line):
                return (found.groupdict().get("what") or found[0]).strip()[:_LONGEST]
    near = [line.strip() for line in stripped[-30:] if line.strip()]
    telling = [line for line in near if _WORDS.search(line)]
    return (telling or near or [""])[-1][:_LONGEST]


def of_launcher(raised: Raised) -> bool:
    """Whether it only says that a process which a launcher had started has failed."""
    kind = raised.kind.rpartition(".")[2]
    if kind == "ChildFailedError":
        return True
    files = _files(raised)
    started = any(mark in file for file in files for mark in ("/accelerate/", "/deepspeed/", "/lightning/"))
    return kind == "CalledProcessError" and started


def _files(raised: Raised) -> Iterator[str]:
    return (frame.file for frame in raised.frames)
