"""What a launcher says when its ranks have failed: torchrun's report, ft_launcher's line, deepspeed's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

#: torchrun: the beginning of its report, of an entry, and its lines.
_REPORT: Final = "Failures:"
_ROOT: Final = "Root Cause (first observed failure):"
_ENTRY = re.compile(r"^\s*\[\d{1,6}\]:\s*$")
_FIELD = re.compile(r"^\s*(?P<name>time|host|rank|exitcode|error_file|traceback)\s*: ?(?P<value>.*)$")
_RULE = re.compile(r"^\s*(?:={5,}|-{5,})\s*$")
_RANK = re.compile(r"(\d{1,9}) \(local_rank: (\d{1,9})\)")
_EXIT = re.compile(r"(-?\d{1,9}) \(pid: (\d{1,9})\)")
#: ft_launcher says all of it in one line.
_FAILURE = re.compile(
    r"\b(?P<rank>\d{1,9}): ProcessFailure\(local_rank=(?P<local>\d{1,9}), pid=(?P<pid>\d{1,9}), "
    r"exitcode=(?P<exit>-?\d{1,9}), error_file='(?P<file>[^']{0,1000})'"
)
_FIRST = re.compile(r"failed \(exitcode: (-?\d{1,9})\) local_rank: (\d{1,9}) \(pid: (\d{1,9})\)")
_CLOSING = re.compile(r"Sending process (\d{1,9}) closing signal|Unable to shutdown process (\d{1,9}) via")
_DEEPSPEED = re.compile(r"--local_rank=(\d{1,9})\b.*exits with return code = (-?\d{1,9})")


@dataclass(frozen=True)
class Failure:
    """How a launcher says that a rank ended.

    Args:
        rank, local_rank: in the world, and on its machine.
        exit: its status; below 0: the signal that killed it.
        pid: its process; 0 where nobody says.
        error_file: where it has written its exception; empty without one.
        traceback: its exception, where the report has it.
    """

    rank: int
    local_rank: int
    exit: int
    pid: int = 0
    error_file: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Report:
    """What a launcher says of all of them.

    Args:
        failures: by rank.
        first: the rank that the launcher saw fail first; None where it does not say. It looks a few times a
            second, and counts in whole seconds: of two that fail together it may be the other one.
        closed: processes that the launcher itself has ended.
        lines: the numbers of the lines that are the report's own.
    """

    failures: dict[int, Failure] = field(default_factory=dict)
    first: int | None = None
    closed: frozenset[int] = frozenset()
    lines: frozenset[int] = frozenset()

    def ended_by_launcher(self, failure: Failure) -> bool:
        """Whether the launcher has killed it because another one had failed."""
        if failure.exit >= 0:
            return False
        # 15: SIGTERM, where the log no longer reaches back to who was sent it.
        return failure.pid in self.closed or (failure.exit == -15 and not self.closed)


def read(lines: Sequence[str]) -> Report:
    """The last report of a log."""
    closed = {int(one or other) for line in lines for one, other in _CLOSING.findall(line)}
    found = _torchrun(lines) or _ft_launcher(lines) or _by_line(lines)
    return replace(found, closed=frozenset(closed))


def _torchrun(lines: Sequence[str]) -> Report | None:
    roots = [at for at, line in enumerate(lines) if line.strip() == _ROOT]
    if not roots:
        return None
    begin = max((at for at in range(roots[-1]) if lines[at].strip() == _REPORT), default=roots[-1])
    end = next(
        (at for at in range(roots[-1], len(lines)) if lines[at].strip().startswith("=====")), len(lines)
    )
    entries: list[dict[str, str]] = []
    root = None
    for at in range(begin, end):
        line = lines[at]
        if line.strip() == _ROOT:
            root = len(entries)
        elif _ENTRY.match(line):
            entries.append({})
        elif entries and "traceback" in entries[-1] and not _RULE.match(line):
            entries[-1]["traceback"] += "\n" + line.removeprefix("  ")
        elif entries and (found := _FIELD.match(line)):
            entries[-1].setdefault(found["name"], found["value"].strip())
    failures = {number: one for number, entry in enumerate(entries) if (one := _failure(entry)) is not None}
    first = failures.get(root) if root is not None else None
    return Report(
        {one.rank: one for one in failures.values()},
        first.rank if first else None,
        lines=frozenset(range(begin, end)),
    )


def _failure(entry: dict[str, str]) -> Failure | None:
    rank, status = _RANK.match(entry.get("rank", "")), _EXIT.match(entry.get("exitcode", ""))
    if rank is None or status is None:
        return None
    file, told = entry.get("error_file", ""), entry.get("traceback", "")
    return Failure(
        rank=int(rank[1]),
        local_rank=int(rank[2]),
        exit=int(status[1]),
        pid=int(status[2]),
        error_file="" if file == "<N/A>" else file,
        traceback=told if "Traceback (most recent call last)" in told else "",
    )


def _ft_launcher(lines: Sequence[str]) -> Report | None:
    for at in range(len(lines) - 1, -1, -1):
        found = list(_FAILURE.finditer(lines[at]))
        if not found:
            continue
        failures = {
            int(one["rank"]): Failure(
                rank=int(one["rank"]),
                local_rank=int(one["local"]),
                exit=int(one["exit"]),
                pid=int(one["pid"]),
                error_file="" if one["file"] == "<N/A>" else one["file"],
            )
            for one in found
        }
        pids = [int(said[3]) for line in lines if (said := _FIRST.search(line))]
        first = next((rank for rank, one in failures.items() if pids and one.pid == pids[-1]), None)
        return Report(failures, first, lines=frozenset((at,)))
    return None


def _by_line(lines: Sequence[str]) -> Report:
    """Of a launcher that says it rank by rank, or was ended before its report."""
    said = [found for line in lines if (found := _FIRST.search(line))]
    if said:
        status, rank, pid = (int(text) for text in said[-1].groups())
        return Report({rank: Failure(rank, rank, status, pid)}, rank)
    failures: dict[int, Failure] = {}
    for line in lines:
        if found := _DEEPSPEED.search(line):
            rank = int(found[1])
            failures.setdefault(rank, Failure(rank, rank, int(found[2])))
    return Report(failures, next(iter(failures), None))
