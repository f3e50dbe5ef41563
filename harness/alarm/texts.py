"""What an issue says. Whatever comes from a run stands in code, where GitHub links and notifies nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from harness.alarm.watch import Step
from harness.night.outcome import Outcome
from harness.night.quarantine import Quarantine
from harness.report.github.markdown import block, code, column, cut, title

#: Characters of an issue or a comment; GitHub refuses more than 65,536.
LIMIT = 65_000
_LINE = 600  # characters of a sentence
_EVIDENCE = 20  # sentences
_CHECKS = 12
_HOW_TO_SILENCE = (
    "This issue is kept by the night watch: what stands above is written anew every night, what you write "
    "below stays. It is closed when the cell is green. A cell that is flaky belongs in `quarantine.yaml`."
)


@dataclass(frozen=True)
class Place:
    """Where the night ran.

    Args:
        repository: ``OWNER/NAME``; empty when nobody said.
        server: ``https://github.com``.
        run: number of the workflow's run; empty when it is none.
        today: in UTC.
    """

    repository: str
    server: str
    run: str
    today: date

    @property
    def run_url(self) -> str:
        """The page of the run; empty when there is none."""
        return (
            f"{self.server}/{self.repository}/actions/runs/{self.run}" if self.run and self.repository else ""
        )

    def issue_url(self, number: int) -> str:
        """The page of an issue."""
        return f"{self.server}/{self.repository}/issues/{number}"

    def commit(self, name: str) -> str:
        """A commit, linked where there is a repository."""
        shown = f"`{name[:12]}`"
        return f"[{shown}]({self.server}/{self.repository}/commit/{name})" if self.repository else shown


def issue_title(step: Step) -> str:
    """Of a new issue."""
    if len(step.outcomes) == 1 and step.spell.subject == step.outcomes[0].cell.id:
        component = step.outcomes[0].component
        return title(f"{step.spell.subject} is red" + (f": {component}" if component else ""))
    return title(f"{step.spell.subject}: {len(step.outcomes)} cells turned red together")


def issue_text(step: Step, place: Place, limit: int = LIMIT) -> str:
    """The visible text of an issue, in at most ``limit`` characters."""
    one = step.outcomes[0] if len(step.outcomes) == 1 else None
    subject = code(step.spell.subject)
    head = [
        f"{subject} is red." if one else f"{len(step.outcomes)} cells of {subject} are red.",
        "",
        "| | |",
        "|---|---|",
    ]
    if one:
        said = one.headline
        head += [f"| **{name}** | {column(cut(text, _LINE))} |" for name, text in said.facts]
    head += [f"| **{name}** | {text} |" for name, text in _history(step, place)]
    tail = ["", _HOW_TO_SILENCE]
    head += ["", *_again(step, one)]
    room = limit - len("\n".join([*head, "", *tail])) - 100
    return "\n".join([*head, "", *(_evidence(one, room) if one else _cells(step.outcomes, room)), *tail])


def changed(step: Step, place: Place) -> str:
    """A comment: still red, for another reason."""
    lines = [f"Still red after {step.spell.nights} nights, but not for the same reason."]
    return _comment(lines, step.outcomes, place)


def reopened(step: Step, place: Place) -> str:
    """A comment: red again, or closed by hand while it was red."""
    return _comment(["Red again, or red still when it was closed."], step.outcomes, place)


def closed(step: Step, place: Place) -> str:
    """A comment: green again."""
    commits = {outcome.commit for outcome in step.outcomes if outcome.commit}
    at = f" at {place.commit(commits.pop())}" if len(commits) == 1 else ""
    return f"Green again{at}, after {_nights(step.spell.nights)}.{_run(place)}"


def gone(place: Place) -> str:
    """A comment: there is no such cell any more."""
    return f"Not in the matrix any more: its case was removed, or is not run on this hardware.{_run(place)}"


def quarantined(step: Step, quarantine: Quarantine) -> str:
    """A comment: the watch leaves the issue alone for a while."""
    lines = []
    for outcome in step.outcomes:
        entry = quarantine.entry(outcome.cell)
        if entry is not None:
            lines.append(
                f"{code(outcome.cell.id)} is in quarantine until {entry.expires}, owner {code(entry.owner)}: "
                f"{code(cut(entry.reason, _LINE))}. This issue is left alone until it is taken out."
            )
    return cut("\n".join(lines), LIMIT)


def _comment(lines: list[str], outcomes: tuple[Outcome, ...], place: Place) -> str:
    if len(outcomes) == 1:
        said = outcomes[0].headline
        lines += [f"* **{name}**: {code(cut(text, _LINE))}" for name, text in said.facts]
    else:
        lines += _cells(outcomes, LIMIT // 2)
    return "\n".join(lines) + _run(place)


def _run(place: Place) -> str:
    return f" [Run]({place.run_url})" if place.run_url else ""


def _nights(number: int) -> str:
    return f"{number} night" if number == 1 else f"{number} nights"


def _history(step: Step, place: Place) -> list[tuple[str, str]]:
    spell = step.spell
    if spell.bad is None:
        span = "not known: the results do not say at which commit they were made"
    elif spell.good is None:
        span = f"{place.commit(spell.bad)} or before: no green night is on record"
    elif spell.good == spell.bad:
        span = (
            f"none: {place.commit(spell.bad)} was green before. The cell is flaky, or the machine has changed"
        )
    else:
        span = f"after {place.commit(spell.good)} (green), up to {place.commit(spell.bad)} (red)"
        if place.repository:
            span += f": [changes]({place.server}/{place.repository}/compare/{spell.good}...{spell.bad})"
    found = [("first bad commit", span), ("red since", f"{spell.since}, {_nights(spell.nights)}")]
    commits = sorted({outcome.commit for outcome in step.outcomes if outcome.commit})
    last = " ".join([*(place.commit(name) for name in commits[:3]), _run(place).strip()]).strip()
    return [*found, ("last night", last)] if last else found


def _again(step: Step, one: Outcome | None) -> list[str]:
    if one is None:
        return []
    lines = ["See it on your own machine:", "", block(one.headline.command, "sh")]
    spell = step.spell
    if spell.good and spell.bad and spell.good != spell.bad:
        run = f"git bisect run sh -c {shlex.quote(one.headline.command)}"
        bisect = f"git bisect start {spell.bad} {spell.good}\n{run}"
        lines += ["", "Find the commit:", "", block(bisect, "sh")]
    return lines


def _evidence(outcome: Outcome, room: int) -> list[str]:
    verdict = outcome.verdict
    if verdict is None:
        return []
    said = list(verdict.diagnosis.evidence[:_EVIDENCE]) if verdict.diagnosis else []
    said += [f"{check.name}: {check.message}" for check in verdict.failures[:_CHECKS]]
    more = len(verdict.failures) - _CHECKS
    lines = [cut(line, _LINE) for line in said] + ([f"and {more} more checks"] if more > 0 else [])
    kept = _fitting((" ".join(line.split()) for line in lines), room)
    return [block("\n".join(kept))] if kept else []


def _cells(outcomes: tuple[Outcome, ...], room: int) -> list[str]:
    lines = [f"* {code(outcome.cell.id)}: {code(cut(outcome.headline.what, 120))}" for outcome in outcomes]
    kept = _fitting(lines, room)
    more = len(lines) - len(kept)
    return [*kept, *([f"* and {more} more"] if more else [])]


def _fitting(lines: Iterable[str], room: int) -> list[str]:
    kept = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept
