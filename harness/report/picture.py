"""Which rank holds what, as a picture: the ranks of a layout by stage and replica, the lost part marked."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.report.markup import Markup, el, table
from harness.text import count, printable

_SIZES = re.compile(r"\b(TP|CP|PP|VP|DP|EP|ETP)(\d{1,6})\b", re.IGNORECASE)
_LAYER = re.compile(r"\blayers\.(\d+)\.")
_STREAM = re.compile(r"^rng\..*\.(\d+)_(\d+)_(\d+)$")
_DRAWN = 256  # ranks; more would be a grey field
_BOX, _HIGH, _GAP, _GUTTER = 132, 74, 6, 26


@dataclass(frozen=True)
class Layout:
    """Sizes of the parallel dimensions; ranks are numbered as Megatron-LM does: TP, then CP, DP, PP.

    Args:
        tp, cp, dp, pp: their product is the number of ranks.
        vp: model chunks on each stage.
        ep, etp: how experts are laid over a stage's ranks.
        layers, experts: of the model; 0 when not known.
    """

    tp: int = 1
    cp: int = 1
    dp: int = 1
    pp: int = 1
    vp: int = 1
    ep: int = 1
    etp: int = 1
    layers: int = 0
    experts: int = 0

    @staticmethod
    def parse(text: str, arguments: Mapping[str, Any] | None = None) -> Layout | None:
        """Read ``TP4 PP2 VP1 DP1 EP2 ETP2``; None when it says nothing of the kind.

        Args:
            arguments: the case's, of which ``--num-layers`` and ``--num-experts`` say who holds what.
        """
        sizes = {name.lower(): int(size) for name, size in _SIZES.findall(text)}
        if not sizes or min(sizes.values()) < 1:
            return None
        found = (arguments or {}).get
        return Layout(**sizes, layers=_whole(found("--num-layers")), experts=_whole(found("--num-experts")))

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self.tp * self.cp * self.dp * self.pp

    def rank(self, tp: int, pp: int, replica: int) -> int:
        """The global rank at these coordinates; ``replica`` counts CP and DP together."""
        return (pp * self.dp * self.cp + replica) * self.tp + tp

    def expert_rank(self, tp: int, replica: int) -> int:
        """Which share of the experts a rank of a stage holds."""
        return (replica * self.tp + tp) // self.etp % self.ep

    def layers_of(self, pp: int) -> list[range]:
        """The layers of a stage, one range per model chunk; empty when they are not known."""
        stages = self.pp * self.vp
        if not self.layers or self.layers % stages:
            return []
        per = self.layers // stages
        return [range((v * self.pp + pp) * per, (v * self.pp + pp + 1) * per) for v in range(self.vp)]

    def experts_of(self, share: int) -> range:
        """The experts of one share of EP; empty when they are not known."""
        per = self.experts // self.ep if self.experts % self.ep == 0 else 0
        return range(share * per, (share + 1) * per)


@dataclass(frozen=True)
class Lost:
    """What to mark.

    Args:
        component: its word.
        names: the names that differ, as far as they are known.
        rows: of a name, the first and last index of its dimension 0 that differ.
    """

    component: str
    names: tuple[str, ...] = ()
    rows: Mapping[str, tuple[int, int]] | None = None

    def holders(self, layout: Layout) -> set[tuple[int, int, int]]:
        """(tp, pp, replica) of every rank that holds some of it; all of them when nothing says less."""
        everywhere = {
            (t, p, r)
            for t in range(layout.tp) for p in range(layout.pp) for r in range(layout.dp * layout.cp)
        }  # fmt: skip
        found: set[tuple[int, int, int]] = set()
        for name in self.names:
            found |= self._of(name, layout, everywhere)
            if found == everywhere:
                break
        if not self.names and self.component == "embedding":
            return {at for at in everywhere if at[1] in (0, layout.pp - 1)}
        return found or everywhere

    def _of(
        self, name: str, layout: Layout, everywhere: Collection[tuple[int, int, int]]
    ) -> set[tuple[int, int, int]]:
        if stream := _STREAM.match(name):
            t, p, d = map(int, stream.groups())
            return {at for at in everywhere if at[:2] == (t, p) and at[2] % layout.dp == d}
        here = set(everywhere)
        if layer := _LAYER.search(name):
            stages = [p for p in range(layout.pp) if any(int(layer[1]) in r for r in layout.layers_of(p))]
            if stages:
                here = {at for at in here if at[1] in stages}
        elif "embedding." in name:
            here = {at for at in here if at[1] == 0 or ("word_embeddings" in name and at[1] == layout.pp - 1)}
        elif "output_layer." in name or "final_layernorm." in name:
            here = {at for at in here if at[1] == layout.pp - 1}
        rows = (self.rows or {}).get(name)
        if "experts." in name and "shared_experts." not in name and rows and layout.experts:
            shares = {s for s in range(layout.ep) if _meet(layout.experts_of(s), rows)}
            if shares:
                here = {at for at in here if layout.expert_rank(at[0], at[2]) in shares}
        return here


def lost_of(component: str, entries: Iterable[Mapping[str, Any]]) -> Lost:
    """What a ``state_diff.json`` says of a component."""
    names, rows = [], {}
    for entry in entries:
        name = str(entry.get("name", ""))
        names.append(name)
        span = entry.get("rows")
        if isinstance(span, (list, tuple)) and len(span) == 2:
            rows[name] = (_whole(span[0]), _whole(span[1]))
    return Lost(component, tuple(names), rows)


def draw(title: str, layout: Layout, lost: Lost | None) -> Markup:
    """The picture and, for who cannot see it, the same as a table."""
    marked = lost.holders(layout) if lost else set()
    heading = f"{title}: {count(layout.world, 'rank')}"
    where = f"{count(layout.world, 'rank')}."
    if lost and len(marked) == layout.world:
        where = f"Every rank holds some of what was lost: {lost.component}."
    elif lost:
        ranks = sorted(layout.rank(*at) for at in marked)
        where = f"Lost: {lost.component}, on {_some(ranks)}."
    picture = _svg(title, layout, marked, lost, f"{heading}. {where}")
    return el(
        "figure",
        el("figcaption", el("strong", title), f" {_sizes(layout)} – {where}"),
        el("div", picture, class_="scroll", tabindex=0, role="region", aria_label=title),
        el("details", el("summary", "The same as a table"), _table(heading, layout, marked)),
        class_="layout",
    )  # fmt: skip


def _svg(
    title: str, layout: Layout, marked: Collection[tuple[int, int, int]], lost: Lost | None, said: str
) -> Markup:
    hatch = f"hatch-{title.split(maxsplit=1)[0].lower()}"
    shown = layout
    if layout.world > _DRAWN:  # replicas are alike: fewer of them say the same
        shown = replace(layout, dp=max(1, _DRAWN // (layout.tp * layout.pp)), cp=1)
    replicas = shown.dp * shown.cp
    stage = shown.tp * (_BOX + _GAP) - _GAP
    width = shown.pp * (stage + _GUTTER) + 64 - _GUTTER
    height = 44 + replicas * (_HIGH + 14)
    parts = []
    for p in range(shown.pp):
        x = 64 + p * (stage + _GUTTER)
        parts.append(el("text", _stage_words(layout, p), x=x, y=18, class_="stage"))
        parts += [
            el("text", f"TP {t}", x=x + t * (_BOX + _GAP) + 2, y=36, class_="small") for t in range(shown.tp)
        ]
        for r in range(replicas):
            y = 44 + r * (_HIGH + 14)
            if p == 0:
                parts.append(el("text", _replica_words(layout, r), x=0, y=y + 24, class_="stage"))
            parts += [
                _box(
                    layout, (t, p, r), x + t * (_BOX + _GAP), y, lost if (t, p, r) in marked else None, hatch
                )
                for t in range(shown.tp)
            ]
    if shown != layout:
        left = layout.world - shown.world
        parts.append(el("text", f"and {left} more ranks, alike", x=64, y=height + 12, class_="stage"))
        height += 18
    pattern = el(
        "pattern", el("path", d="M0 6L6 0", class_="hatch"),
        id=hatch, width=6, height=6, patternUnits="userSpaceOnUse",
    )  # fmt: skip
    return el("svg", el("defs", pattern), parts, class_="ranks", viewBox=f"0 0 {width} {height}",
              width=width, height=height, role="img", aria_label=said)  # fmt: skip


def _box(
    layout: Layout, at: tuple[int, int, int], x: float, y: float, lost: Lost | None, hatch: str
) -> Markup:
    t, p, r = at
    lines = [_layer_words(layout, p), _expert_words(layout, t, r)]
    parts = [
        el("rect", x=x, y=y, width=_BOX, height=_HIGH, rx=5, class_="rank lost" if lost else "rank"),
        el("rect", x=x, y=y, width=_BOX, height=_HIGH, rx=5, fill=f"url(#{hatch})") if lost else None,
        el("text", f"rank {layout.rank(*at)}", x=x + 8, y=y + 18, class_="who"),
        el("text", f"lost: {printable(lost.component)}", x=x + 8, y=y + 66, class_="what") if lost else None,
    ]
    parts += [
        el("text", line, x=x + 8, y=y + 34 + 16 * i, class_="small") for i, line in enumerate(lines) if line
    ]
    return el("g", parts)


def _table(heading: str, layout: Layout, marked: Collection[tuple[int, int, int]]) -> Markup:
    rows = []
    for rank in range(min(layout.world, _DRAWN)):
        t, rest = rank % layout.tp, rank // layout.tp
        r, p = rest % (layout.dp * layout.cp), rest // (layout.dp * layout.cp)
        rows.append(el(
            "tr", el("th", rank, scope="row"), el("td", p), el("td", t), el("td", _replica_words(layout, r)),
            el("td", _layer_words(layout, p) or "–"), el("td", _expert_words(layout, t, r) or "–"),
            el("td", "lost" if (t, p, r) in marked else ""),
        ))  # fmt: skip
    head = ("rank", "PP", "TP", "replica", "layers", "experts", "lost")
    more = f" (the first {_DRAWN})" if layout.world > _DRAWN else ""
    return table(heading + more, head, rows)


def _sizes(layout: Layout) -> str:
    named = (("TP", layout.tp), ("CP", layout.cp), ("PP", layout.pp), ("VP", layout.vp), ("DP", layout.dp),
             ("EP", layout.ep), ("ETP", layout.etp))  # fmt: skip
    return " ".join(f"{name}{size}" for name, size in named if name != "CP" or size > 1)


def _stage_words(layout: Layout, p: int) -> str:
    if layout.pp == 1:
        return "stage 0"
    return f"stage {p}" + (": embedding" if p == 0 else ": head" if p == layout.pp - 1 else "")


def _replica_words(layout: Layout, r: int) -> str:
    return f"DP {r // layout.cp}" + (f" CP {r % layout.cp}" if layout.cp > 1 else "")


def _layer_words(layout: Layout, p: int) -> str:
    spans = [_span(part) for part in layout.layers_of(p)]
    if not spans:
        return ""
    single = len(spans) == 1 and "–" not in spans[0]
    return ("layer " if single else "layers ") + ", ".join(spans)


def _expert_words(layout: Layout, t: int, r: int) -> str:
    share = layout.expert_rank(t, r)
    experts = layout.experts_of(share)
    cut = f", ETP {(r * layout.tp + t) % layout.etp}" if layout.etp > 1 else ""
    if experts:
        return f"expert{'s' if len(experts) > 1 else ''} {_span(experts)}{cut}"
    return f"EP {share}{cut}" if layout.ep > 1 else ""


def _span(part: range) -> str:
    return f"{part.start}–{part.stop - 1}" if len(part) > 1 else str(part.start)


def _some(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8]))
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}" + (
        f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    )


def _meet(one: range, rows: tuple[int, int]) -> bool:
    return bool(one) and one.start <= rows[1] and rows[0] < one.stop


def _whole(value: object) -> int:
    try:
        return max(0, int(str(value)))
    except ValueError:
        return 0
