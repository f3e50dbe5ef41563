"""What the plots of a cell show: golden, continuous and resumed, their residuals, the band allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import MetricsError
from harness.report.bands import half_widths
from harness.text import count, one_line

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.goldens import Golden
    from harness.metrics import Series
    from harness.verdict import Verdict

#: The phases whose series are drawn, in the order they are drawn in.
PHASES = ("continuous", "interrupted", "resumed")
POINTS = 400_000  # in one page; what is more is thinned, which the page says
_FIRST = ("lm loss",)
_ALLOWED = {
    "tolerance": "allowed by tolerance", "envelope": "allowed to a single step by the envelope of repeats",
}  # fmt: skip

Values = dict[int, float]


@dataclass(frozen=True)
class Line:
    """One curve: ``golden``, a phase, or a difference such as ``resumed − continuous``."""

    name: str
    values: Values


@dataclass(frozen=True)
class Band:
    """How far a residual may be from zero.

    Args:
        around: the residual it is for.
        text: the rule in words.
        limits: half its height by step; empty when nothing may differ.
    """

    around: str
    text: str
    limits: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Plot:
    """All that is drawn of one metric.

    Args:
        metric: its name.
        steps: every step that a line has, sorted, or as many as are drawn.
        lines: golden first, resumed last: the later is drawn on top.
        residuals: differences.
        bands: of the residuals.
        bad: first bad steps, with the names of the checks that say so.
        checks: the checks of this metric.
        notes: what the curves alone do not show.
    """

    metric: str
    steps: tuple[int, ...]
    lines: tuple[Line, ...]
    residuals: tuple[Line, ...]
    bands: tuple[Band, ...]
    bad: Mapping[int, tuple[str, ...]]
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a check of this metric failed."""
        return any(not check.passed for check in self.checks)

    def as_data(self) -> dict[str, Any]:
        """For the page's script; a number that JSON lacks is null, and named in ``odd``."""
        return {
            "metric": one_line(self.metric),
            "steps": list(self.steps),
            "lines": [self._line(line) for line in self.lines],
            "residuals": [self._line(line) for line in self.residuals],
            "bands": [
                {
                    "around": band.around,
                    "text": band.text,
                    "limits": [band.limits.get(s) for s in self.steps] if band.limits else None,
                }
                for band in self.bands
            ],
            "bad": [
                {"step": step, "text": ", ".join(map(one_line, names))} for step, names in self.bad.items()
            ],
        }

    def _line(self, line: Line) -> dict[str, Any]:
        values = [line.values.get(step) for step in self.steps]
        odd = {i: repr(v) for i, v in enumerate(values) if v is not None and not math.isfinite(v)}
        kept = [None if i in odd else v for i, v in enumerate(values)]
        return {"name": line.name, "values": kept, **({"odd": odd} if odd else {})}


def read_phases(folder: Path) -> tuple[dict[str, dict[str, Series]], list[str]]:
    """The series of every phase below a cell's folder, and what could not be read."""
    from harness.metrics import read_metrics

    found, notes = {}, []
    for phase in PHASES:
        where = folder / phase
        if not where.is_dir():
            continue
        try:
            found[phase] = read_metrics(where / "tensorboard", where, killed=phase == "interrupted")
        except (MetricsError, OSError) as error:
            notes.append(f"{phase}: {one_line(error)}")
    return found, notes


def plots(
    phases: Mapping[str, Mapping[str, Series]], golden: Golden | None, verdict: Verdict, *, k: int
) -> list[Plot]:
    """One plot per metric: those with a failed check first, then the loss, then as they were logged."""
    sources: dict[str, Mapping[str, Series]] = {"golden": golden.series if golden else {}, **phases}
    names = dict.fromkeys(name for series in sources.values() for name in series)
    made = [_plot(name, sources, golden, verdict, k) for name in names]
    made.sort(key=lambda plot: (not plot.failed, plot.metric not in _FIRST))
    total = sum(len(plot.steps) * (len(plot.lines) + len(plot.residuals)) for plot in made)
    if total > POINTS:
        made = [_thinned(plot, max(200, len(plot.steps) * POINTS // total), k) for plot in made]
    return made


def _plot(
    metric: str, sources: Mapping[str, Mapping[str, Series]], golden: Golden | None, verdict: Verdict, k: int
) -> Plot:
    lines, notes = [], []
    for source, series in sources.items():
        if metric in series:
            values, repeated = _by_step(series[metric])
            lines.append(Line(source, values))
            if repeated:
                notes.append(
                    f"{source} logged {count(repeated, 'step')} more than once; the last value is drawn"
                )
    checks = tuple(check for check in verdict.checks if check.metric == metric)
    bad: dict[int, tuple[str, ...]] = {}
    for check in checks:
        if check.first_bad_step is not None:
            bad[check.first_bad_step] = (*bad.get(check.first_bad_step, ()), check.name)
    residuals = _residuals({line.name: line.values for line in lines}, k)
    rounding = str(verdict.provenance.get("rounding", ""))
    return Plot(
        metric=metric,
        steps=tuple(sorted({step for line in lines for step in line.values})),
        lines=tuple(lines),
        residuals=residuals,
        bands=tuple(_bands(residuals, {line.name: line.values for line in lines}, checks, golden, rounding)),
        bad=dict(sorted(bad.items())),
        checks=checks,
        notes=tuple(notes),
    )


def _by_step(series: Series) -> tuple[Values, int]:
    values = dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))
    return values, len(series.steps) - len(values)


def _residuals(lines: Mapping[str, Values], k: int) -> tuple[Line, ...]:
    golden, continuous, resumed = (lines.get(name, {}) for name in ("golden", "continuous", "resumed"))
    found = []
    if golden and continuous:
        found.append(Line("continuous − golden", _minus(continuous, golden)))
    elif golden:
        joined = {**lines.get("interrupted", {}), **{s: v for s, v in resumed.items() if s > k}}
        found.append(Line("joined − golden", _minus(joined, golden)))
    if continuous and resumed:
        found.append(Line("resumed − continuous", _minus(resumed, continuous)))
    return tuple(line for line in found if line.values)


def _minus(a: Values, b: Values) -> Values:
    return {step: a[step] - b[step] for step in a if step in b}


def _bands(
    residuals: Sequence[Line],
    lines: Mapping[str, Values],
    checks: Sequence[Check],
    golden: Golden | None,
    rounding: str,
) -> list[Band]:
    found = []
    for residual in residuals:
        source = residual.name.partition(" − ")[2]
        for check in checks:
            if check.against != source or check.kind not in ("exact", "tolerance", "envelope"):
                continue
            if check.kind == "exact":
                found.append(Band(residual.name, "must be 0: compared bit for bit"))
                break
            actual = {step: lines[source][step] + off for step, off in residual.values.items()}
            statistics = golden.statistics.get(check.metric or "") if golden else None
            known = rounding if source == "golden" else ""
            limits = half_widths(check, lines[source], actual, statistics, known)
            if limits:
                found.append(Band(residual.name, _ALLOWED[check.kind], limits))
            break
    return found


def _thinned(plot: Plot, limit: int, k: int) -> Plot:
    """Fewer steps: of each bucket those where the resumed (or last) line is lowest and highest."""
    if len(plot.steps) <= limit:
        return plot
    kept = {
        plot.steps[0],
        plot.steps[-1],
        *(s for bad in plot.bad for s in (bad - 1, bad, bad + 1)),
        k,
        k + 1,
    }
    width = math.ceil(2 * len(plot.steps) / limit)
    for start in range(0, len(plot.steps), width):
        bucket = plot.steps[start : start + width]
        for line in (*plot.lines[-1:], *plot.residuals[-1:]):
            there = [step for step in bucket if math.isfinite(line.values.get(step, math.nan))]
            if there:
                kept |= {min(there, key=line.values.__getitem__), max(there, key=line.values.__getitem__)}
    steps = tuple(step for step in plot.steps if step in kept)
    note = f"{len(steps)} of {len(plot.steps)} steps are drawn: highest and lowest of their neighbours"
    return Plot(plot.metric, steps, plot.lines, plot.residuals, plot.bands, plot.bad, plot.checks,
                (*plot.notes, note))  # fmt: skip
