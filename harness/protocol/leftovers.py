"""Where a run has gone on that found what a kill had left: by the first step that it logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.protocol import continuation
from harness.trainers.killed import UNNUMBERED

if TYPE_CHECKING:
    from harness.trainers.killed import Left


def gone_on_from(
    resumed: continuation.Curves, left: Left, like: continuation.Curves, *, n: int, interval: int
) -> tuple[int, continuation.WentOn]:
    """The iteration, and whether that is where it may go on.

    It may from any checkpoint, whole or torn, that is not older than the newest which is whole and named, and
    from 0 where none is: what it took then is for the caller to judge.

    Args:
        resumed: what it logged.
        left: what it had found.
        like: what an uninterrupted run logs.
        n: the iterations of a whole run.
        interval: between two saves.
    """
    there = {*left.whole, *left.torn} - {UNNUMBERED}
    if left.unnumbered:
        there |= {*range(interval, n, interval)}
    whole = UNNUMBERED in left.whole - left.odd.keys() and left.sure  # of whichever save, but of one
    oldest = interval if whole else left.committed
    allowed = sorted((i for i in there if i >= oldest), reverse=True)
    allowed += [0] if oldest == 0 else []
    first = continuation.first_of(resumed)
    for again in (False, True):  # that it logs its last step again comes second
        for at in allowed:
            known = continuation.before(like, at)
            expected = (
                continuation.first_of(continuation.after(like, {}, at, n))
                if at
                else continuation.first_of(like)
            )
            if first is None or first != (continuation.last_of(known) if again else expected):
                continue
            logged = known if again else {}
            found = continuation.went_on(resumed, logged, like, at, trained_again=not again, n=n)
            if found.check.passed or at == 0:
                return at, found
    known = continuation.before(like, oldest)
    trained_again = first is not None and first < (continuation.last_of(known) or 0)
    return oldest, continuation.went_on(resumed, known, like, oldest, trained_again=trained_again, n=n)
