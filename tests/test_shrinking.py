"""The search for the least stops that fail, on faults that are only said."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from harness.protocol.shrinking import Chain, evenly, every, shrink, spread

STOPS = list(range(2, 20, 2))


def second_in_an_epoch(chain: Chain, size: int = 6) -> bool:
    """Two stops in one epoch."""
    return any((a - 1) // size == (b - 1) // size for a, b in itertools.pairwise(chain))


FAULTS: dict[str, tuple[Callable[[Chain], bool], Chain]] = {
    "any two": (lambda chain: len(chain) >= 2, (2, 4)),
    "any three": (lambda chain: len(chain) >= 3, (2, 4, 6)),
    "two in one epoch": (second_in_an_epoch, (2, 4)),
    "one late": (lambda chain: any(stop >= 14 for stop in chain), (14,)),
    "one and a later one": (lambda chain: 8 in chain and max(chain) > 12, (8, 14)),
    "that one": (lambda chain: 12 in chain, (12,)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_chain_comes_down_to_the_least_that_fails(name: str) -> None:
    fails, least = FAULTS[name]
    tried: list[Chain] = []

    def asked(chain: Chain) -> bool:
        tried.append(chain)
        return fails(chain)

    assert shrink(tuple(STOPS), STOPS, asked) == least
    assert len(tried) == len(set(tried)) <= 30


def test_whatever_fails_what_is_found_fails_and_no_stop_of_it_can_be_left_out() -> None:
    for seed in range(300):
        luck = random.Random(seed)
        chains = [c for n in (1, 2, 3) for c in itertools.combinations(STOPS, n)]
        needed = set(luck.sample(chains, 2))

        def fails(chain: Chain, needed: set[Chain] = needed) -> bool:
            return any(set(one) <= set(chain) for one in needed)

        found = shrink(tuple(STOPS), STOPS, fails)
        assert fails(found)
        assert not any(fails(found[:i] + found[i + 1 :]) for i in range(len(found)) if len(found) > 1)


def test_without_time_the_chain_stays_what_it_was() -> None:
    assert shrink((4, 8, 12), STOPS, lambda _: None) == (4, 8, 12)


def test_every_stop_is_tried_the_smaller_ones_first_once_one_has_failed() -> None:
    tried = list(every(STOPS, 10, lambda chain: chain[0] in (6, 8, 10)))
    assert sorted(tried) == STOPS
    assert tried[0] == 10
    assert tried[1:4] == [6, 4, 2]


def test_a_budget_that_ends_the_search_leaves_the_rest() -> None:
    left = [3]

    def fails(_: Chain) -> bool | None:
        left[0] -= 1
        return None if left[0] < 0 else False

    assert list(every(STOPS, 10, fails)) == [10, 2, 18]


def test_every_beginning_of_the_order_lies_evenly() -> None:
    assert spread(STOPS, 10)[:5] == [10, 2, 18, 6, 14]
    assert sorted(spread([7], 10)) == [7]
    assert evenly(STOPS, 3) == (2, 10, 18)
    assert evenly(STOPS) == tuple(STOPS)
