"""Which stops are tried next, and how a chain that fails gets shorter; nothing here knows what a run is.

A chain is the iterations that training is stopped at and resumed from, in order. Whether it fails is asked of
``fails``, which answers None where there is no time left to try it. Nothing is taken to be monotonic: a fault
may show itself at some stops and not at others on either side of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

Chain = tuple[int, ...]
Fails = Callable[[Chain], bool | None]

#: A chain of all stops there are would start a process for each: of many, so many are taken, evenly.
LONGEST = 12


def spread(stops: Iterable[int], first: int) -> list[int]:
    """So that every beginning lies evenly: ``first``, both ends, then what is farthest from all before it."""
    waiting = sorted(set(stops))
    order = [stop for stop in (first, waiting[0], waiting[-1]) if stop in waiting] if waiting else []
    order = list(dict.fromkeys(order))
    rest = [stop for stop in waiting if stop not in order]
    while rest:
        # the one that is farthest from all that are in it already; the smaller of two
        widest = max(rest, key=lambda stop: (min(abs(stop - known) for known in order), -stop))
        order.append(widest)
        rest.remove(widest)
    return order


def evenly(stops: Sequence[int], count: int = LONGEST) -> Chain:
    """At most ``count`` of them, from the first to the last."""
    if len(stops) <= count:
        return tuple(stops)
    return tuple(dict.fromkeys(stops[round(i * (len(stops) - 1) / (count - 1))] for i in range(count)))


def every(stops: Iterable[int], first: int, fails: Fails) -> Iterator[int]:
    """Try each alone, and yield it; from the first that fails on, the smaller ones before all others.

    Between the smallest that fails and the largest below it that does not, the middle comes first: where a
    budget ends the search, it is close. Then all others below, from the smallest on.
    """
    waiting, held, failed = spread(stops, first), [0], list[int]()
    while waiting:
        good = max(one for one in held if not failed or one < min(failed))
        stop = _next(waiting, good, failed)
        found = fails((stop,))
        if found is None:
            return
        waiting.remove(stop)
        (failed if found else held).append(stop)
        yield stop


def _next(waiting: Sequence[int], good: int, failed: Sequence[int]) -> int:
    below = sorted(stop for stop in waiting if failed and stop < min(failed))
    if not below:
        return waiting[0]
    between = [stop for stop in below if stop > good]
    return between[len(between) // 2] if between else below[0]


def shrink(chain: Chain, stops: Sequence[int], fails: Fails) -> Chain:
    """A chain of which no stop can be left out, then with each as small as it can be.

    Args:
        chain: one that fails.
        stops: what there is to choose from, ascending.
        fails: of another one; asked for nothing twice.
    """
    known: dict[Chain, bool | None] = {chain: True}

    def still(one: Chain) -> bool:
        if one not in known:
            known[one] = fails(one)
        return known[one] is True

    shrunk = _shorter(chain, still)
    while (lower := _lower(shrunk, stops, still)) != shrunk:
        shrunk = _shorter(lower, still)
    return shrunk


def _shorter(chain: Chain, fails: Callable[[Chain], bool]) -> Chain:
    size = 1
    while size < len(chain):  # most faults need the last ones only
        if fails(chain[-size:]):
            chain = chain[-size:]
            break
        size *= 2
    place = 0
    while place < len(chain) and len(chain) > 1:
        without = chain[:place] + chain[place + 1 :]
        if fails(without):
            chain = without
        else:
            place += 1
    return chain


def _lower(chain: Chain, stops: Sequence[int], fails: Callable[[Chain], bool]) -> Chain:
    """Earlier as a whole, as stops that follow each other; then each stop by itself."""
    size = len(chain)
    windows = [tuple(stops[i : i + size]) for i in range(len(stops) - size + 1)]
    chain = _least([window for window in windows if window < chain], chain, fails)
    for place, stop in enumerate(chain):
        above = chain[place - 1] if place else 0
        options = [(*chain[:place], one, *chain[place + 1 :]) for one in stops if above < one < stop]
        chain = _least(options, chain, fails)
    return chain


def _least(options: Sequence[Chain], chain: Chain, fails: Callable[[Chain], bool]) -> Chain:
    """The first option, if it fails; else by halves, as if all above one that fails did; else ``chain``."""
    while options:
        for place in dict.fromkeys((0, len(options) // 2)):
            if fails(options[place]):
                chain, options = options[place], options[:place]
                break
        else:
            options = options[len(options) // 2 + 1 :]
    return chain
