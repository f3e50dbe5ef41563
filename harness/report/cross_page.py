"""``cross.html``: saved by × resumed by, one table an axis of a case; and the same in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from harness.report.html import write_text
from harness.report.markup import Child, Markup, asset, el, page, table
from harness.report.tables import print_table
from harness.text import count, duration, one_line

if TYPE_CHECKING:
    from harness.checks.measured import Measured
    from harness.protocol.cross import Pair
    from harness.protocol.cross_run import Matrix

PAGE = "cross.html"
#: Sign, words, class of the page's colours.
_RESULTS = {
    "exact": ("✓", "exact", "passed"),
    "within": ("≈", "within", "passed"),
    "refused": ("⊘", "cannot", "unfinished"),
    "cannot": ("✗", "cannot", "failed"),
    "error": ("!", "error", "error"),
}
_LEGEND = (
    "✓ exact: every bit of what follows is the same. ≈ within: as far off as the two sides' own runs, never "
    "stopped, measure. ⊘ cannot: the checkpoint is refused with a sentence. ✗ cannot: it is loaded, and "
    "something is lost. ! error: a side does not even train."
)


def write_cross_page(matrices: Sequence[Matrix], results: Path, notes: Sequence[str] = ()) -> Path:
    """One page for all of them, ``<results>/cross/cross.html``; raises OSError."""
    path = results / "cross" / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(matrices, notes))
    return path


def render(matrices: Sequence[Matrix], notes: Sequence[str] = ()) -> str:
    """The page's text.

    Args:
        notes: what could not be crossed, a sentence each.
    """
    pairs = [pair for matrix in matrices for pair in matrix.pairs]
    lost, broken = sum(pair.lost for pair in pairs), sum(pair.result == "error" for pair in pairs)
    said = f"{count(len(matrices), 'case')}, {count(len(pairs), 'pair')}: {_counts(pairs)}"
    title = "Saved by × resumed by"
    body: list[Child] = [
        el(
            "header",
            el("p", _badge(lost, broken)),
            el("h1", title),
            el("p", f"{said}; {duration(sum(matrix.seconds for matrix in matrices))} in all.", class_="lead"),
            el("p", el("code", matrices[0].reproduce)),
        ),
        el("p", _LEGEND, class_="muted"),
        [_case(matrix) for matrix in matrices],
        [el("p", f"Left out: {note}", class_="muted") for note in notes],
    ]
    return page(
        f"{'✗' if lost or broken else '✓'} {title}",
        el("main", body),
        styles=(asset("assets", "page.css"), asset("assets", "index.css")),
        scripts=(),
    )


def print_matrix(matrix: Matrix, stream: IO[str]) -> None:
    """A table an axis, then why each pair is not exact."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, highlight=False, markup=False, soft_wrap=True)
    for axis, sides in matrix.sides.items():
        shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for heading in (f"{axis}: saved by", *(f"→ {name}" for name in sides)):
            shown.add_column(heading, overflow="fold")
        for one in sides:
            shown.add_row(
                *(Text(text) for text in (one, *(_short(_at(matrix, axis, one, two)) for two in sides)))
            )
        print_table(console, shown)
    for pair in matrix.pairs:
        if pair.result != "exact":
            console.print(f"{pair.saved_by} → {pair.resumed_by}: {_short(pair)}: {one_line(pair.why)}")
    console.print(
        f"{matrix.case}: {count(len(matrix.pairs), 'pair')}: {_counts(matrix.pairs)}, {matrix.seconds:.1f} s"
    )


# -- parts -----------------------------------------------------------------------------------------


def _kind(pair: Pair) -> str:
    return "refused" if pair.result == "cannot" and not pair.loaded else pair.result


def _short(pair: Pair | None) -> str:
    if pair is None:
        return "–"
    sign, word, _ = _RESULTS[_kind(pair)]
    return f"{sign} {word}: {pair.component}" if pair.component else f"{sign} {word}"


def _counts(pairs: Iterable[Pair]) -> str:
    kinds = [_kind(pair) for pair in pairs]
    words = {
        "exact": "exact",
        "within": "within",
        "refused": "refused",
        "cannot": "lost something",
        "error": "error",
    }
    return ", ".join(f"{kinds.count(kind)} {word}" for kind, word in words.items() if kind in kinds) or "none"


def _at(matrix: Matrix, axis: str, saved: str, resumed: str) -> Pair | None:
    found = (p for p in matrix.pairs if (p.axis, p.saved_by, p.resumed_by) == (axis, saved, resumed))
    return next(found, None)


def _badge(lost: int, broken: int) -> Markup:
    if lost:
        return el("span", f"✗ {count(lost, 'pair')} lost something", class_="badge failed")
    if broken:
        return el("span", "! a side does not train", class_="badge error")
    return el("span", "✓ whatever is loaded loses nothing", class_="badge passed")


def _case(matrix: Matrix) -> Markup:
    return el(
        "section",
        el("h2", matrix.case, id=matrix.case),
        el("p", f"{matrix.hardware}: saved after {matrix.k} of {matrix.n} iterations, resumed to {matrix.n}; "
                f"{duration(matrix.seconds)}."),
        [_axis(matrix, axis) for axis in matrix.sides],
        [el("p", note, class_="muted") for note in matrix.notes],
        [_pair(matrix, pair) for pair in matrix.pairs],
    )  # fmt: skip


def _axis(matrix: Matrix, axis: str) -> Markup:
    sides = matrix.sides[axis]
    rows = [
        el(
            "tr",
            el("th", one, el("span", f" {_about(matrix, axis, one)}", class_="muted"), scope="row"),
            [_cell(matrix, _at(matrix, axis, one, two), two) for two in sides],
        )
        for one in sides
    ]
    head = (f"saved by {axis}", *(f"resumed by {name}" for name in sides))
    return table(f"{matrix.case}: saved by × resumed by {axis}", head, rows, class_="matrix")


def _about(matrix: Matrix, axis: str, name: str) -> str:
    about = matrix.sides[axis][name]
    torch = f", torch {about['torch']}" if about["torch"] else ""
    return f"{count(about['ranks'], 'rank')}{torch}"


def _cell(matrix: Matrix, pair: Pair | None, column: str) -> Markup:
    if pair is None:
        return el("td", el("span", "–", class_="muted"), el("span", " itself", class_="said"), class_="none")
    sign, word, colour = _RESULTS[_kind(pair)]
    state = el("a", el("span", f"{sign} {word}", class_="state"), href=f"#{_anchor(matrix, pair)}")
    parts: list[Child] = [state]
    if pair.component:
        parts.append(el("span", pair.component, class_="lost" if pair.lost else "facts"))
    if (worst := _worst(pair)) is not None:
        parts.append(el("span", f"{worst.check.metric}: {_of(worst)}", class_="facts"))
    return el("td", parts, class_=f"cell {colour}", data_label=column)


def _worst(pair: Pair) -> Measured | None:
    """The curve that uses most of what it is allowed; of counts, none."""
    found = [one for one in pair.curves if one.off is not None and one.allowed and not one.counted]
    return max(found, key=lambda one: (one.off or 0.0) / (one.allowed or 1.0), default=None)


def _of(one: Measured) -> str:
    return f"{one.off:.2g} off, {one.allowed:.2g} allowed"


def _anchor(matrix: Matrix, pair: Pair) -> str:
    return f"{matrix.case}-{pair.axis}-{pair.saved_by}-{pair.resumed_by}"


def _pair(matrix: Matrix, pair: Pair) -> Markup:
    said = [el("p", pair.why)]
    if pair.state:
        said.append(el("p", "State: ", pair.state))
    rows = [
        el(
            "tr",
            el("th", one.check.metric or one.check.name, scope="row"),
            el("td", "✓" if one.check.passed else "✗"),
            el("td", one.check.message),
        )
        for one in pair.curves
    ]
    if rows:
        said.append(table(f"Curves of {pair.saved_by} → {pair.resumed_by}", ("curve", "holds", "how"), rows))
    head = el("summary", f"{pair.axis} {pair.saved_by} → {pair.resumed_by}: {_short(pair)}")
    return el("details", head, said, id=_anchor(matrix, pair), open=pair.lost or pair.result == "error")
