"""Curves as inline SVG: what a printer, a page without scripts, and a table's cell show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from harness.report.curves import Plot, Values
from harness.report.markup import Markup, el

_WIDTH, _HEIGHT, _PANEL = 640, 240, 64
_LEFT, _RIGHT, _TOP = 84, 22, 22


def sparkline(values: Sequence[float], label: str, *, width: int = 96, height: int = 24) -> Markup:
    """A small curve without axes; ``label`` says in words what it shows."""
    known = [(i, v) for i, v in enumerate(values) if math.isfinite(v)]
    if not known:
        return el("span", "–", class_="muted", title=label)
    low, high = min(v for _, v in known), max(v for _, v in known)
    across, up = (width - 4) / max(len(values) - 1, 1), (height - 6) / ((high - low) or 1.0)
    flat = height / 2 if high == low else None
    points = [(2 + i * across, flat if flat is not None else height - 3 - (v - low) * up) for i, v in known]
    x, y = points[-1]
    return el(
        "svg",
        el("title", label),
        el("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in points)),
        el("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2),
        class_="spark", viewBox=f"0 0 {width} {height}", width=width, height=height, role="img",
    )  # fmt: skip


def sampled(values: Sequence[float], most: int = 40) -> list[float]:
    """At most ``most`` of them, evenly; first and last are kept."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def static_plot(plot: Plot, k: int) -> Markup:
    """The whole plot of a metric, with its residual panel."""
    steps = plot.steps
    first, last = (steps[0], steps[-1]) if steps else (0, 1)
    frame = _Frame(first, last if last > first else first + 1)
    parts = [frame.panel([(line.name, line.values) for line in plot.lines], _TOP, _HEIGHT - _TOP - 24)]
    bottom = _HEIGHT - 24
    for residual in plot.residuals:
        limits = [band.limits for band in plot.bands if band.limits and band.around == residual.name]
        parts.append(frame.panel([(residual.name, residual.values)], bottom + 12, _PANEL, limits, zero=True))
        bottom += 12 + _PANEL
    parts.append(frame.marks(k, list(plot.bad), bottom))
    return el(
        "svg", parts,
        class_="static", viewBox=f"0 0 {_WIDTH} {bottom + 18}", role="img",
        aria_label=f"{plot.metric}: {', '.join(line.name for line in plot.lines)}; values are in the table",
    )  # fmt: skip


class _Frame:
    """Steps to pixels, the same for both panels."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def x(self, step: float) -> float:
        return _LEFT + (step - self.first) / (self.last - self.first) * (_WIDTH - _LEFT - _RIGHT)

    def panel(
        self,
        lines: Sequence[tuple[str, Values]],
        top: float,
        height: float,
        limits: Sequence[Mapping[int, float]] = (),
        *,
        zero: bool = False,
    ) -> list[Markup]:
        finite = [v for _, values in lines for v in values.values() if math.isfinite(v)]
        low, high = _range(finite, [v for band in limits for v in band.values()], zero=zero)

        def y(value: float) -> float:
            return top + height - (value - low) / (high - low) * height

        parts = [el("rect", x=_LEFT, y=top, width=_WIDTH - _LEFT - _RIGHT, height=height, class_="frame")]
        parts += [
            el("polygon", class_="band", points=" ".join(
                [f"{self.x(s):.1f},{y(v):.1f}" for s, v in sorted(band.items())]
                + [f"{self.x(s):.1f},{y(-v):.1f}" for s, v in sorted(band.items(), reverse=True)]
            ))
            for band in limits
        ]  # fmt: skip
        for value in (0.0, high) if zero else (low, (low + high) / 2, high):
            parts.append(el("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{y(value):.1f}", y2=f"{y(value):.1f}",
                            class_="grid"))  # fmt: skip
            parts.append(el("text", f"{value:.4g}", x=_LEFT - 6, y=f"{y(value) + 4:.1f}", text_anchor="end"))
        for name, values in lines:
            for piece in _pieces(values, self._stride()):
                points = " ".join(f"{self.x(s):.1f},{y(v):.1f}" for s, v in piece)
                parts.append(el("polyline", points=points, class_=f"line {line_class(name)}"))
        return parts

    def _stride(self) -> int:
        return max(1, (self.last - self.first) // 600)

    def marks(self, k: int, bad: Sequence[int], bottom: float) -> list[Markup]:
        parts = []
        if self.first <= k <= self.last:
            x = f"{self.x(k):.1f}"
            parts += [el("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="at-k"),
                      el("text", f"k = {k}", x=x, y=_TOP - 8, text_anchor="middle")]  # fmt: skip
        for step in bad[:1]:
            x = f"{self.x(step):.1f}"
            anchor = "end" if self.x(step) > _WIDTH / 2 else "start"
            near = self.first <= k <= self.last and abs(self.x(step) - self.x(k)) < 120
            parts += [el("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="at-bad"),
                      el("text", f"first bad step {step}", x=x, y=_TOP + (12 if near else -8),
                         dx=4 if anchor == "start" else -4, text_anchor=anchor, class_="bad")]  # fmt: skip
        for step in (self.first, self.last):
            parts.append(el("text", step, x=f"{self.x(step):.1f}", y=bottom + 14, text_anchor="middle"))
        return parts


def line_class(name: str) -> str:
    """The style class of a line: its name without signs."""
    return "c-" + "-".join(word for word in name.split() if word.isalpha())


def _range(values: list[float], limits: list[float], *, zero: bool) -> tuple[float, float]:
    if zero:
        highest = max(map(abs, [*values, *limits]), default=0.0) or 1.0
        return -1.1 * highest, 1.1 * highest
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def _pieces(values: Values, stride: int) -> Iterator[list[tuple[int, float]]]:
    """Runs of finite values: what is missing is a gap, not a straight line."""
    piece: list[tuple[int, float]] = []
    ordered = sorted(values.items())
    for i, (step, value) in enumerate(ordered):
        if not math.isfinite(value):
            if piece:
                yield piece
            piece = []
        elif i % stride == 0 or i in (0, len(ordered) - 1):
            piece.append((step, value))
    if piece:
        yield piece
