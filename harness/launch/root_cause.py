"""What ended a phase first: read from the logs that its launcher and its ranks have left.

A rank that only tells of another one's end is never named as the cause while any log knows better.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.errors import Frame, Raised
from harness.launch import peers, rank_logs, reports
from harness.launch.rank_logs import Attempt, Reader
from harness.launch.reports import Failure, Report
from harness.launch.tracebacks import Told, last_words, of_launcher, plain, tells_of
from harness.text import count, one_line

#: Lines behind an exception that has ended its process: farewells of libraries. One that was caught has more.
_AFTER: Final = 40
#: Lines between the tracebacks of ranks that ended together, in a log that they share.
_TOGETHER: Final = 300
_LONGEST: Final = 500  # characters of a sentence from a log
_KILLED, _RAISED, _ENDED, _CLOSED_LATE, _MIXED, _PEER, _CLOSED = range(7)

#: Makes text from outside harmless.
Clean = Callable[[str], str]


@dataclass(frozen=True)
class RootCause:
    """Why a phase ended.

    Args:
        rank: which rank failed first; None where none is named.
        reason: what happened to it: ``failed: ValueError: …``, ``was killed by SIGKILL, …``.
        log: where that stands.
        raised: the exception; None where there was none.
        evidence: what else is to be said of it, a sentence each.
        weight: of several nodes', the lowest failed first.
    """

    rank: int | None
    reason: str
    log: Path
    raised: Raised | None = None
    evidence: tuple[str, ...] = ()
    weight: int = 0


@dataclass(frozen=True)
class _Witness:
    """One rank, and what is known of its end."""

    rank: int | None
    log: Path
    failure: Failure | None = None
    closed: bool = False
    told: Raised | None = None
    final: bool = True
    words: str = ""
    when: float = 0.0

    @property
    def exit(self) -> int | None:
        return self.failure.exit if self.failure else None

    @property
    def weight(self) -> int:
        """How likely it only tells of another's end; the lowest failed first."""
        status = self.exit
        if status is not None and status < 0 and not self.closed and -status not in (6, 2):
            return _KILLED  # its peers' exceptions come first, and it says nothing itself
        if self.told is None:
            if self.closed or (self.words and peers.of_peer((), self.words)):
                return _CLOSED if self.closed else _PEER
            return _ENDED
        suspicion = peers.suspicion_of(self.told)
        if suspicion == peers.OWN:
            return _CLOSED_LATE if self.closed else _RAISED
        return _MIXED if suspicion == peers.MIXED else _PEER


def of_command(
    folder: Path, log: Path, clean: Clean, *, killed: int = 0, status: int = 0, first: int = 0
) -> RootCause:
    """What ended a command, and all that it had started.

    Args:
        folder: the phase's, or one in it where a launcher of several has kept its files.
        log: what the command and what it started have printed.
        killed: the signal that killed the command itself; 0: none.
        status: what it exited with; 0 where it was killed.
        first: the rank of its first process: launchers number those of one node from 0.
    """
    reader = Reader()
    lines = plain(reader.end(log, rank_logs.WHOLE))
    report, attempt = reports.read(lines), rank_logs.last_attempt(folder)
    shared = _last_together(
        [told for told in tells_of(_without(lines, report.lines)) if not of_launcher(told.raised)]
    )
    ranks = [*_of_ranks(attempt, report, reader, first)]
    # A launcher makes folders of its ranks also where all that they say goes into one log.
    kept = {first + local for local in attempt.ranks} if attempt else set()
    known = kept & {one.rank for one in ranks if one.told is not None or one.words}
    witnesses = [*ranks, *_of_stream(shared, report, log, known, first)]
    cause = min(witnesses, key=lambda one: _order(one, report), default=None)
    if cause is None or (cause.told is None and cause.exit is None):
        return _alone(log, lines, clean, killed=killed, status=status)
    found = _said(cause, clean)
    alike = {
        one.rank for one in witnesses
        if one is not cause and one.told and cause.told and one.told.words() == cause.told.words()
    } - {cause.rank, None}  # fmt: skip
    also = [f"so did {count(len(alike), 'other rank')}, with the same words"] if alike else []
    also += _earlier(attempt, cause, reader, clean, first)
    return replace(found, evidence=(*found.evidence, *also), weight=cause.weight)


def of_rank(log: Path, clean: Clean) -> tuple[Raised | None, tuple[str, ...]]:
    """The exception that stands at the end of one rank's own log, and where it was raised."""
    told = _last(plain(Reader().end(log)))
    if told is None:
        return None, ()
    raised = _cleaned(told, clean)
    return raised, _where(raised)


def words_at_the_end(folder: Path, log: Path, clean: Clean) -> list[str]:
    """The last lines of a command and of each rank of it: what one says that ends without an error."""
    attempt, reader = rank_logs.last_attempt(folder), Reader()
    ranks = attempt.ranks.values() if attempt else ()
    files = [log, *(path / name for path in ranks for name in ("stderr.log", "stdout.log"))]
    return [clean(line)[:_LONGEST] for file in files for line in plain(reader.end(file))[-40:]]


# -- who has seen what -------------------------------------------------------------------------


def _of_ranks(attempt: Attempt | None, report: Report, reader: Reader, first: int) -> Iterable[_Witness]:
    """One for each rank that has files of its own, or that the launcher speaks of."""
    failures = {one.local_rank: one for one in report.failures.values()}
    folders = attempt.ranks if attempt else {}
    order = sorted({*failures, *folders}, key=lambda local: (local not in failures, local))
    for local in order:
        failure = failures.get(local)
        folder = folders.get(local)
        named = Path(failure.error_file) if failure and failure.error_file else None
        yield _of_files(failure.rank if failure else first + local, folder, named, failure, report, reader)


def _of_files(
    rank: int,
    folder: Path | None,
    named: Path | None,
    failure: Failure | None,
    report: Report,
    reader: Reader,
) -> _Witness:
    closed = failure is not None and report.ended_by_launcher(failure)
    found = _Witness(rank, (folder or Path()) / "stderr.log", failure, closed)
    errors = [folder / "error.json"] if folder else []
    errors += [named] if named is not None and named not in errors else []
    written = next((one for path in errors if (one := reader.error_file(path))), None)
    if written is not None:
        found = replace(found, when=written.when)
    for name in ("stderr.log", "stdout.log") if folder else ():
        assert folder is not None
        lines = plain(reader.end(folder / name))
        told = _last(lines)
        if told is not None:
            return replace(found, log=folder / name, told=told)
        words = last_words(lines)
        if words and not found.words:
            found = replace(found, log=folder / name, words=words)
    if written is not None:
        told = _last(plain(written.traceback)) or _of_words(written.message)
        path = next(path for path in errors if path.is_file())
        return replace(found, log=path, told=told)
    if failure is not None and failure.traceback:
        return replace(found, told=_last(plain(failure.traceback)))
    return found


def _of_words(message: str) -> Raised:
    kind, _, said = message.partition(": ")
    return Raised(kind[:200], said[:600])


def _of_stream(
    shared: Sequence[Told], report: Report, log: Path, known: Collection[int | None], first: int
) -> Iterable[_Witness]:
    """Of a log that all share: each exception, of the rank that its lines name; ``known`` say it better."""
    nameless = [told for told in shared if told.rank is None]
    for told in shared:
        rank = told.rank
        if rank is not None and rank < first:
            rank += first  # its lines name the local one
        if rank is not None and rank in known:
            continue
        if rank is None and len(nameless) == 1:
            # One exception, and one rank that ended of itself: it is that one's.
            own = [one.rank for one in report.failures.values() if not report.ended_by_launcher(one)]
            rank = own[0] if len(own) == 1 and own[0] not in known else None
        failure = report.failures.get(rank) if rank is not None else None
        closed = failure is not None and report.ended_by_launcher(failure)
        yield _Witness(rank, log, failure, closed, told.raised, when=float(told.end))


def _order(one: _Witness, report: Report) -> tuple[int, bool, bool, float, int]:
    first = one.rank is not None and one.rank == report.first
    return (one.weight, one.told is None, not first, one.when, -1 if one.rank is None else one.rank)


def _last(lines: Sequence[str]) -> Raised | None:
    """The exception that a process's own log ends with."""
    told = [one for one in tells_of(lines) if not of_launcher(one.raised)]
    if not told:
        return None
    after = [line for line in lines[told[-1].end + 1 :] if line.strip() and not line.startswith("wandb:")]
    return told[-1].raised if len(after) <= _AFTER else None


def _last_together(told: Sequence[Told]) -> list[Told]:
    """Those at the end of a shared log: what was caught long before is no matter."""
    found: list[Told] = []
    for one in reversed(told):
        if found and found[-1].end - one.end > _TOGETHER:
            break
        found.append(one)
    return found[::-1]


def _without(lines: Sequence[str], left_out: frozenset[int]) -> list[str]:
    return ["" if at in left_out else line for at, line in enumerate(lines)]


# -- what is said of it ------------------------------------------------------------------------


def _said(first: _Witness, clean: Clean) -> RootCause:
    rank, log, status = first.rank, first.log, first.exit
    if first.weight == _KILLED and status is not None:
        return RootCause(rank, _killed(-status, first.words, clean), log)
    if first.told is None:
        return RootCause(rank, _ended(status, first.words, clean), log)
    raised = _cleaned(first.told, clean)
    said = sentence(raised)
    if first.weight in (_PEER, _CLOSED):
        reason = f"was told that another rank had gone, and no log says why that one did: {said}"
        return RootCause(rank, reason, log, None, _where(raised))
    return RootCause(rank, f"failed: {said}", log, raised, _where(raised))


def _alone(log: Path, lines: Sequence[str], clean: Clean, *, killed: int, status: int) -> RootCause:
    """Of a command that no launcher has reported on."""
    words = last_words(lines)
    if killed:
        return RootCause(None, _killed(killed, words, clean), log)
    peer = bool(words) and peers.of_peer((), words)
    return RootCause(None, _ended(status, words, clean), log, weight=_PEER if peer else _ENDED)


def _killed(number: int, words: str, clean: Clean) -> str:
    name = _signal(number)
    said = f"was killed by {name}"
    if number == signal.SIGKILL:
        return f"{said}, perhaps out of memory"
    fault = number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
    return f"{said}; its log ends with: {_short(words, clean)}" if fault and words else said


def _ended(status: int | None, words: str, clean: Clean) -> str:
    if status is None:
        said = "ended"
    elif status < 0:
        said = f"was killed by {_signal(-status)}"
    else:
        said = f"exited with status {status}"
        if 128 < status < 128 + 65:
            memory = ", perhaps out of memory" if status - 128 == signal.SIGKILL else ""
            said += f" (killed by {_signal(status - 128)}{memory})"
    return f"{said} without a traceback; its log ends with: {_short(words, clean)}" if words else said


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def sentence(raised: Raised) -> str:
    """What was raised, and what it began with."""
    chain = list(raised.chain())
    said = _cut(raised.words())
    if len(chain) == 1:
        return said
    began = _cut(chain[-1].words())
    if peers.suspicion_of(raised) == peers.MIXED:
        return f"{began} (then {said})"  # its clean-up found the others gone
    return f"{said} ({chain[-2].link} {began})"


def _where(raised: Raised) -> tuple[str, ...]:
    """The innermost frame, and the innermost one that is in no library."""
    if not raised.frames:
        return ()
    inner = raised.frames[-1]
    said = f"raised in {_place(inner)}"
    own = [frame for frame in raised.frames if not _of_library(frame.file)]
    if own and own[-1] != inner:
        said += f", called from {_place(own[-1])}"
    return (said,)


def _of_library(file: str) -> bool:
    return any(mark in file for mark in ("/site-packages/", "/dist-packages/", "/lib/python", "<frozen"))


def _place(frame: Frame) -> str:
    file = frame.file
    for mark in ("/site-packages/", "/dist-packages/"):
        file = file.rpartition(mark)[2]
    return f"{frame.function} ({file}:{frame.line})"


def _earlier(attempt: Attempt | None, cause: _Witness, reader: Reader, clean: Clean, first: int) -> list[str]:
    """A launcher that starts its ranks again: how often, and what was another failure before."""
    if attempt is None or not attempt.before:
        return []
    said = [f"the launcher started its ranks {attempt.number + 1} times; this is the last of them"]
    begun = attempt.before[-1]
    witnesses = [w for w in _of_ranks(begun, Report(), reader, first) if w.told is not None]
    other = min(witnesses, key=lambda one: _order(one, Report()), default=None)
    if other is not None and other.told is not None and other.weight == _RAISED:
        before = _cleaned(other.told, clean)
        if cause.told is None or before.words() != _cleaned(cause.told, clean).words():
            said.append(
                f"the first of them: rank {other.rank} failed: {sentence(before)}; its log: {other.log}"
            )
    return said


def _cleaned(raised: Raised, clean: Clean) -> Raised:
    """Harmless: text of a log may be anything."""
    frames = tuple(
        Frame(clean(one.file), one.line, clean(one.function), clean(one.source)) for one in raised.frames
    )
    cause = _cleaned(raised.cause, clean) if raised.cause is not None else None
    return Raised(clean(raised.kind), clean(raised.message), frames, cause, raised.link)


def _short(words: str, clean: Clean) -> str:
    return _cut(clean(words))


def _cut(said: str) -> str:
    said = one_line(said)
    return said if len(said) <= _LONGEST else said[: _LONGEST - 1].rstrip() + "…"
