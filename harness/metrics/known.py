"""What is known of metrics by their names: how each is judged, and what it tells of training.

The one table: checks, diagnosis, goldens and reports all ask :data:`METRICS`. To have a metric judged
exactly, from above only or not at all, add a row; nothing else names metrics in order to judge them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, Literal

from harness.metrics import units

#: How a metric is judged, whatever lane its curve is in:
#:
#: * ``value``: as the lane says: bit for bit, by tolerance, or by the envelope of repeats;
#: * ``exact``: counted by the program, not computed by the hardware: equal in every lane;
#: * ``rate``: computed by the program from counts: equal up to the rounding of one formula;
#: * ``count``: a count of what rounding decides: its median, a few more or fewer;
#: * ``time``, ``memory``: costs, from above only and against a golden only;
#: * ``finite``: no two runs share it: it must be there and be a number, and its size is not judged;
#: * ``unread``: another view of what another curve shows: left out when it is read.
Judged = Literal["value", "exact", "rate", "count", "time", "memory", "finite", "unread"]
#: What a curve that leaves its course tells of, in the diagnosis.
Tells = Literal["data", "rate", "scale", "loss", "gradient", "parameters", "validation", "other"]
#: Of what tells of data: the samples themselves, or how many of them there were.
Data = Literal["digest", "position", "size"]


@dataclass(frozen=True)
class Tolerance:
    """What a metric is allowed on another machine, all relative to the expected size.

    Args:
        cap: the most any step may be off.
        floor: the noise below which a jump or a shift is never looked for.
        grows: whether it starts at rounding and grows: then the first steps are held to far less.
        jump: how many times as much as its neighbours' noise a jump may be. The highest in 1,268 pairs of
            clean runs: 6.4 for ``lm loss``, 15.9 for ``grad-norm``, 9.3 for ``params-norm``.
        widths: over how many steps a level that jumps is averaged.
        first: the most that the first step may be off; None where that may be a device's own random stream.
        least: the least that values are taken to be, relative to the curve's median: 1 for a metric that may
            be anything, also around zero.
        rounding: caps where both sides have measured their operations and only these round otherwise, by the
            precision of the model: some times what was seen (``python -m benchmarks.rounding``;
            ``docs/sensitivity.md``).
    """

    cap: float
    floor: float
    grows: bool = False
    least: float = 0.1
    jump: float = 20.0
    widths: tuple[int, ...] = (1, 3)
    first: float | None = None
    rounding: Mapping[str, float] = field(default_factory=dict)


#: What any other metric is allowed.
OTHER: Final = Tolerance(5e-2, 1e-3, least=1.0)


@dataclass(frozen=True)
class Metric:
    """A row: a metric, or a family of them.

    What a row leaves out (None), the next row that fits says.

    Args:
        name: of the metric, to the letter; of a family, a pattern that is looked for in the name.
        judged: how it is judged.
        tells: what it tells of, where it leaves its course.
        data: of what tells of data, which kind.
        tolerance: of what is judged by value, what it is allowed on another machine.
        highest: of a cost: its highest value counts, not the median of its steady steps.
    """

    name: str | re.Pattern[str]
    judged: Judged | None = None
    tells: Tells | None = None
    data: Data | None = None
    tolerance: Tolerance | None = None
    highest: bool | None = None

    def fits(self, metric: str) -> bool:
        """Whether it speaks of ``metric``."""
        if isinstance(self.name, str):
            return self.name == metric
        return bool(self.name.search(metric[-_LONGEST:]))  # a name may be of any length, and from anywhere


@dataclass(frozen=True)
class Known:
    """All that the table says of one metric.

    Args:
        judged, tells, tolerance, highest: as of :class:`Metric`.
        data: likewise; None for what does not tell of data, or of nothing more.
    """

    judged: Judged
    tells: Tells
    data: Data | None
    tolerance: Tolerance
    highest: bool

    @property
    def cost(self) -> bool:
        """Whether it is judged from above only."""
        return self.judged in ("time", "memory")


class Metrics:
    """Rows, asked by the name of a metric.

    Args:
        rows: the first one that fits and says something counts.
    """

    def __init__(self, rows: Iterable[Metric]) -> None:
        self.rows = tuple(rows)
        self.of = lru_cache(1024)(self._of)

    def _of(self, metric: str) -> Known:
        rows = [row for row in self.rows if row.fits(metric)]
        return Known(
            judged=next((row.judged for row in rows if row.judged), "value"),
            tells=next((row.tells for row in rows if row.tells), "other"),
            data=next((row.data for row in rows if row.data), None),
            tolerance=next((row.tolerance for row in rows if row.tolerance), OTHER),
            highest=next((row.highest for row in rows if row.highest is not None), False),
        )

    def beside(self, *rows: Metric) -> Metrics:
        """These and ``rows``, which are asked first."""
        return Metrics((*rows, *self.rows))


def _family(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_LONGEST: Final = 160  # characters of a name that a pattern is looked for in, the last ones

#: The largest deviations that were seen between clean runs of 100 steps: 2.5e-4 for another CPU (bfloat16),
#: 4.8e-3 for another type of GPU, whose random streams differ from the first step on.
_LOSS: Final = Tolerance(7e-3, 1.5e-5, jump=14.0, rounding={"fp32": 5e-4, "bf16": 2e-3})

_OVER_SAMPLES: Final = " vs samples"

METRICS: Final = Metrics((
    # One metric each, to the letter: Megatron-LM's, and what our own trainer logs beside them.
    Metric("lm loss", "value", "loss", tolerance=replace(_LOSS, grows=True, widths=(1, 3, 8))),
    Metric("lm loss validation", "value", "validation", tolerance=_LOSS),
    Metric("grad-norm", "value", "gradient",
           tolerance=Tolerance(0.2, 3e-4, rounding={"fp32": 2e-2, "bf16": 5e-2})),
    Metric("params-norm", "value", "parameters",
           tolerance=Tolerance(5e-3, 1e-6, grows=True, rounding={"fp32": 5e-4, "bf16": 1e-3})),
    Metric("load_balancing_loss", "value", "loss",
           tolerance=Tolerance(5e-2, 1e-3, rounding={"fp32": 5e-3, "bf16": 2e-2})),
    Metric("num-zeros", "count", "gradient"),  # gradient elements that are exactly zero
    Metric("batch-digest", "exact", "data", "digest"),
    Metric("batch-size", "exact", "data", "size"),
    Metric("consumed-samples", "exact", "data", "position"),
    Metric("consumed-tokens", "exact", "data", "position"),
    Metric("epoch", "exact", "data", "size"),
    Metric("skipped-train-samples", "exact"),
    Metric("world-size", "exact"),
    Metric("loss-scale", "exact", "scale"),
    Metric("learning-rate", "rate", "rate"),
    Metric("decoupled-learning-rate", "rate", "rate"),
    Metric("lr", "rate", "rate"),
    Metric("weight-decay", "rate"),
    Metric("iteration-time", "time"),
    Metric("iter-energy/gpu", "finite"),
    Metric("power/gpu", "finite"),
    # Families, by what trainers call such things. How they are judged:
    Metric(_family(rf"{_OVER_SAMPLES}$"), "unread"),  # Megatron-LM logs each curve again, over another axis
    Metric(units.TRAINING, "value"),
    Metric(units.SHARED_BY_NO_TWO_RUNS, "finite"),
    Metric(units.SECONDS, "time"),
    Metric(units.BYTES, "memory"),
    Metric(_family(r"max"), highest=True),
    # What they tell, in the order in which a name decides:
    Metric(_family(r"digest"), data="digest"),
    Metric(_family(r"consumed|seen"), data="position"),
    Metric(_family(r"valid|(?:^|[^a-z])(?:eval|val|test)(?:$|[^a-z])"), tells="validation"),
    Metric(_family(r"consumed|digest|batch[-_ ]?size|epoch|(?:samples|tokens)[-_ ]seen|seen[-_ ]\w"),
           tells="data"),
    Metric(_family(r"learning[-_ ]?rate|(?:^|[-_/ ])lr(?:$|[-_/ ])"), tells="rate"),
    Metric(_family(r"(?:loss|grad)[-_ ]?scale"), tells="scale"),
    Metric(_family(r"grad|gnorm|num[-_ ]?zeros"), tells="gradient"),
    Metric(_family(r"(?:param|weight)\w*[-_ ]?norm"), tells="parameters"),
    Metric(_family(r"loss|perplexity|\bppl\b|accuracy"), tells="loss"),
))  # fmt: skip


def about(metric: str) -> Known:
    """All that the table says of a metric."""
    return METRICS.of(metric)


def shown_by(metric: str) -> str:
    """The metric that has what one that is ``unread`` shows over another axis; itself where no name tells."""
    return metric.removesuffix(_OVER_SAMPLES)


def is_training(metric: str) -> bool:
    """Whether a name has a word for what training is about, and none of a cost."""
    return bool(units.TRAINING.search(metric[-_LONGEST:]))
