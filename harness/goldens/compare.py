"""Two sources, metric by metric: where they part, how far, and which way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from harness.goldens.reading import ranges
from harness.goldens.sources import Source


@dataclass(frozen=True)
class MetricDiff:
    """One metric in two sources.

    Args:
        metric: its name.
        steps: how many steps both have.
        differing: at how many of them the values differ.
        first: the first such step, with both values.
        largest: the largest absolute difference: (step, difference).
        relative: the largest relative one, to A: (step, ratio); None where A is 0 throughout.
        higher, lower: at how many steps B is higher, and lower.
        only_a, only_b: steps that one side lacks.
    """

    metric: str
    steps: int
    differing: int = 0
    first: tuple[int, float, float] | None = None
    largest: tuple[int, float] | None = None
    relative: tuple[int, float] | None = None
    higher: int = 0
    lower: int = 0
    only_a: tuple[int, ...] = ()
    only_b: tuple[int, ...] = ()

    @property
    def same(self) -> bool:
        """Same steps, same values, bit for bit."""
        return not (self.differing or self.only_a or self.only_b)

    @property
    def direction(self) -> str:
        """Which way B went."""
        if self.higher and self.lower:
            return f"B is higher at {self.higher} steps, lower at {self.lower}"
        return f"B is {'higher' if self.higher else 'lower'} at all {self.differing} of them"

    def sentence(self) -> str:
        """One line for a person."""
        said = []
        if self.first and self.largest:
            step, a, b = self.first
            said.append(f"{self.differing} of {self.steps} steps differ, first {step}: {a!r} → {b!r}")
            said.append(f"largest {self.largest[1]:.3g} at step {self.largest[0]}")
            if self.relative:
                said.append(f"relative {self.relative[1]:.3g} at step {self.relative[0]}")
            said.append(self.direction)
        for side, steps in (("A", self.only_a), ("B", self.only_b)):
            if steps:
                said.append(f"steps only in {side}: {ranges(list(steps))}")
        return f"{self.metric}: {'; '.join(said) or f'the same at all {self.steps} steps'}"

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "same": self.same}


def compare(a: Source, b: Source) -> list[MetricDiff]:
    """Every metric of either, in A's order."""
    return [
        _metric(name, a.values.get(name, {}), b.values.get(name, {}))
        for name in dict.fromkeys((*a.values, *b.values))
    ]


def _metric(name: str, a: Mapping[int, float], b: Mapping[int, float]) -> MetricDiff:
    both = sorted(a.keys() & b.keys())
    # repr tells 0.0 from -0.0, which are equal and not the same; a whole number may be written either way.
    apart = [step for step in both if a[step] != b[step] or repr(float(a[step])) != repr(float(b[step]))]
    only = (tuple(sorted(a.keys() - b.keys())), tuple(sorted(b.keys() - a.keys())))
    if not apart:
        return MetricDiff(name, len(both), only_a=only[0], only_b=only[1])
    far = max(apart, key=lambda step: abs(b[step] - a[step]))
    ratios = {step: abs(b[step] - a[step]) / abs(a[step]) for step in apart if a[step]}
    odd = max(ratios, key=lambda step: ratios[step]) if ratios else None
    return MetricDiff(
        name, len(both), len(apart), (apart[0], a[apart[0]], b[apart[0]]),
        (far, abs(b[far] - a[far])), None if odd is None else (odd, ratios[odd]),
        sum(b[step] > a[step] for step in apart), sum(b[step] < a[step] for step in apart),
        *only,
    )  # fmt: skip
