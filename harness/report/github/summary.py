"""The job summary: a table of cells, and for each red one what, since when, what was lost, the command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.report.github.markdown import block, code, column, cut

if TYPE_CHECKING:
    from harness.matrix import Cell
    from harness.night.outcome import Outcome
    from harness.night.quarantine import Entry

#: Bytes that GitHub takes of one step; of more it shows nothing at all.
LIMIT = 1024 * 1024
_HEAD = "| cell | verdict | what | since | lost |\n|---|---|---|---|---|\n"
_ROOM = 512  # bytes kept free for the sentence that says what was left out
_WIDEST = 600  # characters of one cell of the table


def markdown(outcomes: Sequence[Outcome], held: Mapping[Cell, Entry], limit: int = LIMIT) -> str:
    """All of it, in at most ``limit`` bytes: what does not fit is counted, greens go first.

    Args:
        outcomes: of all cells.
        held: the quarantine entry of each cell that has one.
        limit: bytes in UTF-8.
    """
    red = [outcome for outcome in outcomes if outcome.red]
    skipped = [outcome for outcome in outcomes if not outcome.red and not outcome.green]
    alarming = [outcome for outcome in red if outcome.cell not in held]
    quiet = [outcome for outcome in red if outcome.cell in held]
    green = [outcome for outcome in outcomes if outcome.green]
    counts = f"{len(alarming)} red, {len(quiet)} red in quarantine, {len(green)} green"
    if skipped:
        counts += f", {len(skipped)} skipped"
    sign = "❌" if alarming else "✅" if green or quiet else "⚪"
    text = f"## {sign} {counts}\n\n"
    pieces: list[tuple[str, Iterable[str], str]] = [
        (_HEAD, [_row(outcome, held) for outcome in [*alarming, *quiet, *skipped]], "\n"),
        ("", [_details(outcome, held) for outcome in [*alarming, *quiet]], ""),
        (
            f"<details><summary>{len(green)} green</summary>\n\n{_HEAD}",
            [_row(outcome, held) for outcome in green],
            "\n</details>\n",
        ),
    ]
    left = limit - _size(text) - _ROOM
    dropped = 0
    for before, items, after in pieces:
        parts = list(items)
        if not parts:
            continue
        room = left - _size(before + after)
        kept = []
        for part in parts:
            room -= _size(part)
            if room < 0:
                break
            kept.append(part)
        dropped += len(parts) - len(kept)
        if kept:
            written = before + "".join(kept) + after
            text += written
            left -= _size(written)
    if dropped:
        text += f"\n{dropped} entries did not fit into GitHub's limit; they are in the results.\n"
    return text


def _row(outcome: Outcome, held: Mapping[Cell, Entry]) -> str:
    head = outcome.headline
    if outcome.green:
        what, since, lost = "everything held", "", ""
        if outcome.remark:
            what = f"{what}; {outcome.remark}"
    else:
        what, since, lost = (column(cut(text, _WIDEST)) for text in (head.what, head.since, head.lost))
    return f"| {column(outcome.cell.id)} | {_verdict(outcome, held)} | {what} | {since} | {lost} |\n"


def _verdict(outcome: Outcome, held: Mapping[Cell, Entry]) -> str:
    status = outcome.verdict.status if outcome.verdict else "old" if outcome.old else "no verdict"
    word = f"{'✅' if outcome.green else '❌' if outcome.red else '⚪'} {status}"
    return f"{word}, in quarantine" if outcome.cell in held else word


def _details(outcome: Outcome, held: Mapping[Cell, Entry]) -> str:
    head = outcome.headline
    lines = [
        f"### {code(outcome.cell.id)}\n",
        *(f"* **{name}**: {code(cut(text, _WIDEST))}" for name, text in head.facts),
    ]
    entry = held.get(outcome.cell)
    if entry is not None:
        reason = code(cut(entry.reason, _WIDEST))
        lines.append(f"* **in quarantine** until {entry.expires}, owner {code(entry.owner)}: {reason}")
    return "\n".join([*lines, "", block(head.command, "sh"), "", ""])


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
