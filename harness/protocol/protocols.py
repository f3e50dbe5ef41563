"""Train, save, stop, resume, compare; say what was lost.

The protocols read like that sentence. Each is a generator: what it yields was found by one step, and goes
into the verdict, also when a later step cannot be taken. What a step does stands in :mod:`.steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.protocol.crash import check_crash, kills
from harness.protocol.findings import Found, NotResumed
from harness.protocol.plan import MANY_STOPS
from harness.protocol.searching import try_chain, try_every
from harness.protocol.stops import check_stops

if TYPE_CHECKING:
    from harness.protocol.crash import Kill
    from harness.protocol.findings import Recorded
    from harness.protocol.plan import Plan
    from harness.protocol.steps import Steps


def full(steps: Steps) -> Iterator[Found]:
    """1.5 N iterations: the uninterrupted run is there to compare with, whatever happens."""
    yield (continuous := steps.train())
    yield steps.compare_with_golden(continuous)
    yield from steps.train_again()
    if not steps.plan.resumes:
        return
    source = continuous
    if not steps.plan.rewinds:
        yield (source := steps.interrupt())
        yield steps.compare_before(source, continuous)
    yield (resumed := steps.resume(source, like=continuous.series))
    if isinstance(resumed, NotResumed):
        return
    yield steps.came_to_the_end(resumed, continuous)
    yield (curves := steps.compare_with_uninterrupted(resumed, continuous, source))
    yield steps.compare_saved_state(resumed, continuous, source, curves)


def fast(steps: Steps) -> Iterator[Found]:
    """N iterations when all is well: the joined curve and the state at N are those of an exact golden.

    On any doubt the uninterrupted reference is run too, so that a failure still tells "resuming is
    broken" from "training changed".
    """
    golden = steps.plan.golden
    if golden is None or not steps.plan.resumes:
        yield from full(steps)
        return
    yield (interrupted := steps.interrupt())
    yield (resumed := steps.resume(interrupted, like=golden.series))
    yield (joined := steps.compare_joined_with_golden(interrupted, resumed))
    if joined.equal:
        return
    yield (continuous := steps.train())
    yield (curves := steps.compare_with_golden(continuous))
    yield (before := steps.compare_before(interrupted, continuous))
    if isinstance(resumed, NotResumed):
        return
    yield steps.came_to_the_end(resumed, continuous)
    yield (after := steps.compare_with_uninterrupted(resumed, continuous, interrupted))
    yield (state := steps.compare_saved_state(resumed, continuous, interrupted, after))
    yield joined.unexplained((continuous, curves, before, after, state))


def reshard(steps: Steps) -> Iterator[Found]:
    """``full``, resumed with the parallel sizes of MODEL_ARGS_2: another layout must lose nothing."""
    return full(steps)


def crash(steps: Steps) -> Iterator[Found]:
    """``full``, but the first process is killed, as often as asked; resumed from what a user would have."""
    yield (continuous := steps.train())
    yield steps.compare_with_golden(continuous)
    yield from kills(steps, continuous, lambda kill: _killed_and_resumed(steps, kill, continuous))


def _killed_and_resumed(steps: Steps, kill: Kill, continuous: Recorded) -> Iterator[Found]:
    killed, resumed = kill.interrupt(), None
    while killed.left is not None and killed.at < steps.plan.n:
        if (resumed := kill.resume(killed)) is not None:
            break
        killed = kill.interrupt()
    yield killed
    if killed.left is None:
        return
    if resumed is None:
        yield steps.nothing_was_resumed(killed)
        return
    if isinstance(resumed, NotResumed):
        yield resumed
        return
    yield from kill.judged(resumed, _compared(steps, resumed, continuous, killed.left))


def _compared(steps: Steps, resumed: Recorded, continuous: Recorded, source: Recorded) -> Iterator[Found]:
    yield steps.came_to_the_end(resumed, continuous)
    yield (curves := steps.compare_with_uninterrupted(resumed, continuous, source))
    yield steps.compare_saved_state(resumed, continuous, continuous, curves)


def every(steps: Steps) -> Iterator[Found]:
    """``full`` at every checkpoint there is between 0 and N; where some fail, the smallest k that does."""
    yield (continuous := steps.train())
    yield steps.compare_with_golden(continuous)
    yield from try_every(steps, continuous)


def chain(steps: Steps) -> Iterator[Found]:
    """Stopped and resumed again and again; where that fails, the shortest chain of stops that does."""
    yield (continuous := steps.train())
    yield steps.compare_with_golden(continuous)
    yield from try_chain(steps, continuous)


PROTOCOLS: dict[str, Callable[[Steps], Iterator[Found]]] = {
    "full": full, "fast": fast, "crash": crash, "reshard": reshard, "every": every, "chain": chain,
}  # fmt: skip


def choose(plan: Plan) -> str:
    """The protocol of a plan. ``auto`` is fast where the golden is going to be exact; recording needs it all.

    Raises:
        UsageError: the protocol that was asked for does not fit the case.
    """
    if plan.options.protocol == "reshard" and not plan.layouts_differ:
        raise UsageError(
            f"{plan.case.name}: protocol reshard needs MODEL_ARGS_2 with other parallel sizes",
            "add them to the case, or take --protocol full",
        )
    if plan.options.protocol == "crash":
        check_crash(plan)
    if plan.options.protocol in MANY_STOPS:
        check_stops(plan)
    if plan.options.golden_update and plan.options.protocol in ("auto", "fast", "crash", *MANY_STOPS):
        return "full"
    if plan.options.protocol != "auto":
        return plan.options.protocol
    return "fast" if plan.expects_exact() else "full"
