"""``harness alarm``: judge a night, tell whoever has to know, and end with 1 when it was red."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.output import flag_since
from harness.errors import EXIT_FAILED, EXIT_NOTHING, EXIT_PASSED, AlarmError, UsageError
from harness.text import one_line
from harness.verdict import NOT_RUN

if TYPE_CHECKING:
    from harness.alarm.client import Client
    from harness.alarm.issues import Issues
    from harness.alarm.memory import Memory
    from harness.alarm.texts import Place
    from harness.alarm.watch import Step, Watch

_REPOSITORY = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+")
_MOST_FAILURES = 3  # issues that could not be kept; then it is GitHub, not the issue
_DID = {
    "opened": "turned red: issue opened",
    "reopened": "red again: issue reopened",
    "changed": "still red, for another reason: issue updated",
    "stays": "still red: issue updated",
    "closed": "green again: issue closed",
    "gone": "not in the matrix any more: issue closed",
    "quarantined": "in quarantine: issue left alone",
}


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """The options."""
    text = "tell whoever has to know of a night's results: issues, and a webhook"
    alarm = commands.add_parser(
        "alarm",
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="environment: GITHUB_TOKEN and GITHUB_REPOSITORY for issues, HARNESS_WEBHOOK_URL for the "
        "webhook. exit status: 0 all well, or red only in quarantine; 1 red, or an entry of the quarantine "
        "that is over; 2 a bad file, or somebody could not be told; 3 every cell was skipped",
    )
    alarm.set_defaults(do=_alarm)
    alarm.add_argument("results", metavar="RESULTS", type=Path, help="folder of the night's results")
    alarm.add_argument("--dry-run", action="store_true", help="write nothing; say what would be done")
    alarm.add_argument("--state", metavar="FILE", type=Path, help="what is remembered from night to night")
    alarm.add_argument(
        "--expect", metavar="LISTING", type=Path,
        help="what nox -l --json prints, or the folder of cases: its cells are red when they have no verdict",
    )  # fmt: skip
    alarm.add_argument("--hardware", metavar="NAME", action="append", default=[], help="expect only this")
    alarm.add_argument("--track", metavar="NAME", action="append", default=[], help="expect only this")
    flag_since(alarm, "24 hours ago")
    alarm.add_argument("--quarantine", metavar="FILE", type=Path, help="default: quarantine.yaml, if there")
    alarm.add_argument("--repository", metavar="OWNER/NAME", help="default: $GITHUB_REPOSITORY")
    alarm.add_argument(
        "--label", metavar="NAME", default="night-watch", help="of the issues; default: %(default)s"
    )
    alarm.add_argument("--night", metavar="NAME", help="default: $GITHUB_RUN_ID, else made of the results")
    alarm.add_argument(
        "--together", metavar="N", type=int, default=10,
        help="more cells than this, red at once on one (hardware, track), share an issue; "
        "default: %(default)s",
    )  # fmt: skip
    alarm.add_argument(
        "--webhook-format", choices=("auto", "generic", "slack"), default="auto",
        help="auto: slack for hooks.slack.com, else generic",
    )  # fmt: skip
    alarm.add_argument(
        "--wait", metavar="SECONDS", type=float, default=1.0,
        help="between two writes, and before the second try; doubled each time; default: %(default)s",
    )  # fmt: skip


def _alarm(arguments: argparse.Namespace) -> int:
    from harness.alarm.memory import read_memory
    from harness.alarm.watch import Watch
    from harness.night.night import read_night
    from harness.night.quarantine import read_quarantine
    from harness.night.when import since
    from harness.report.github.matrix import expected_cells

    if not 0 <= arguments.wait <= 60 or arguments.together < 1:
        raise UsageError("--wait: expected 0 to 60; --together: expected 1 or more")
    if not arguments.label.strip() or "," in arguments.label:  # GitHub takes a comma for two labels
        raise UsageError(f"--label {arguments.label!r}: expected a name without a comma")
    quarantine = read_quarantine(arguments.quarantine)
    wanted = expected_cells(arguments.expect, hardware=arguments.hardware, tracks=arguments.track)
    night = read_night(arguments.results, wanted, since(arguments.since, strict=True))
    memory = read_memory(arguments.state)
    name = arguments.night or os.environ.get("GITHUB_RUN_ID") or night.digest
    today = datetime.now(timezone.utc).date()
    place = _place(arguments)
    watch = Watch(night, name[:200], today, quarantine, memory, arguments.together)
    telling = _Telling(arguments, watch, place)
    try:
        telling.tell()
    finally:
        red, held = watch.red(), watch.held()
        for outcome in night.outcomes:  # no issue says it when it is red for another reason already
            if outcome.problem or outcome.state in NOT_RUN:
                print(f"{outcome.cell.id}: {one_line(outcome.headline.what)}")
        green = sum(outcome.green for outcome in night.outcomes)
        skipped = sum(outcome.state == "skipped" and not outcome.red for outcome in night.outcomes)
        more = f", {skipped} skipped" if skipped else ""
        print(f"{len(red)} red, {len(held)} red in quarantine, {green} green{more}")
    if red or telling.complaints:
        return EXIT_FAILED
    return EXIT_PASSED if held or green else EXIT_NOTHING


class _Telling:
    """Tells issues first, then the webhook, and remembers how far it came."""

    def __init__(self, arguments: argparse.Namespace, watch: Watch, place: Place) -> None:
        self.arguments, self.watch, self.place = arguments, watch, place
        self.dry = bool(arguments.dry_run)
        self.complaints: tuple[str, ...] = ()
        self.failures: list[AlarmError] = []
        self.issues = _issues(arguments, watch, place)
        self.url = _secret("HARNESS_WEBHOOK_URL")
        if not (self.dry or self.issues or self.url):
            raise UsageError(
                "nobody to tell: neither GITHUB_TOKEN and GITHUB_REPOSITORY nor HARNESS_WEBHOOK_URL is set",
                "set one of them, or look with --dry-run",
            )

    def tell(self) -> None:
        """Do it, and print a line of each thing done.

        Raises:
            AlarmError: somebody could not be told; all the others were.
        """
        from harness.alarm.watch import Known

        memory, watch = self.watch.memory, self.watch
        if self.issues is not None:
            known = self.issues.known()
        else:
            known = {name: Known(spell, open=(0,)) for name, spell in memory.spells.items()}
        steps = watch.steps(known)
        done = [(step, self._perform(step)) for step in steps]
        self._remember(memory, steps)
        self.complaints = _complaints(watch)
        for text in self.complaints:
            print(f"quarantine: {one_line(text)}")
        try:
            self._webhook(done)
        except AlarmError as error:
            self.failures.append(error)
        # Also when somebody could not be told: the others were.
        if self.arguments.state is not None and not self.dry:
            memory.write(self.arguments.state)
        if self.failures:
            more = len(self.failures) - 1
            first = self.failures[0]
            raise AlarmError(first.message + (f"; and {more} more failed" if more else ""), first.advice)

    def _perform(self, step: Step) -> tuple[int, ...]:
        """Keep the issues of one step; their numbers."""
        numbers: tuple[int, ...] = ()
        if self.issues is not None and not self.dry:
            if len(self.failures) >= _MOST_FAILURES:
                print(f"{step.spell.subject}: not told")
                return ()
            try:
                numbers = self.issues.perform(step)
            except AlarmError as error:
                self.failures.append(error)
                print(f"{step.spell.subject}: {error}")
                return ()
        did = _DID[step.kind] if self.issues is not None else _DID[step.kind].partition(":")[0]
        which = " " + ", ".join(f"#{number}" for number in numbers) if any(numbers) else ""
        print(f"{'dry run: ' if self.dry else ''}{step.spell.subject}: {did}{which}")
        return numbers

    def _remember(self, memory: Memory, steps: tuple[Step, ...]) -> None:
        watch = self.watch
        held = [one.cell.id for one in watch.night.outcomes if watch.quarantine.entry(one.cell) is not None]
        memory.see(watch.night.outcomes, watch.name, held)
        for step in steps:
            if step.kind in ("closed", "gone"):
                memory.spells.pop(step.spell.subject, None)
            else:
                memory.spells[step.spell.subject] = step.spell

    def _webhook(self, done: list[tuple[Step, tuple[int, ...]]]) -> None:
        from harness.alarm import webhook

        if not self.url and not self.dry:
            return
        watch = self.watch
        content = webhook.generic(done, watch, self.complaints, self.place)
        news = len(content["news"]) + len(content["quarantine_complaints"])
        if not news:
            print("webhook: no news")
        elif content["id"] == watch.memory.told:
            print("webhook: was told already")
        elif self.dry:
            print(f"dry run: webhook: told {news} news")
        else:
            slack = webhook.slack_wanted(self.arguments.webhook_format, self.url)
            client = _client(self.arguments, self.url, "webhook", {})
            watch.memory.owed = content["news"]
            webhook.post(client, webhook.slack(content) if slack else content)
            watch.memory.told, watch.memory.owed = content["id"], []
            print(f"webhook: told {news} news")


def _complaints(watch: Watch) -> tuple[str, ...]:
    streaks = {name: cell.streak for name, cell in watch.memory.cells.items()}
    cells = [outcome.cell for outcome in watch.night.outcomes if not outcome.missing]
    return watch.quarantine.complaints(cells, streaks, watch.today)


def _place(arguments: argparse.Namespace) -> Place:
    from harness.alarm.texts import Place

    repository = arguments.repository or os.environ.get("GITHUB_REPOSITORY") or ""
    if repository and not _REPOSITORY.fullmatch(repository):
        raise UsageError(f"repository {repository!r}: expected OWNER/NAME")
    server = (os.environ.get("GITHUB_SERVER_URL") or "https://github.com").rstrip("/")
    run = os.environ.get("GITHUB_RUN_ID") or ""
    today = datetime.now(timezone.utc).date()
    return Place(repository, server, run if run.isdecimal() else "", today)


def _issues(arguments: argparse.Namespace, watch: Watch, place: Place) -> Issues | None:
    from harness.alarm.issues import Issues

    token = _secret("GITHUB_TOKEN")
    if not token or not place.repository:
        return None
    api = (os.environ.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/")
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    return Issues(_client(arguments, api, "GitHub", headers), arguments.label, place, watch.quarantine)


def _client(arguments: argparse.Namespace, address: str, name: str, headers: Mapping[str, str]) -> Client:
    from harness import __version__
    from harness.alarm.client import Client, Pace

    wait = arguments.wait
    pace = replace(Pace(), first=wait, limited=60 * wait)
    return Client(address, name, {"User-Agent": f"resume-harness/{__version__}", **headers}, pace)


def _secret(variable: str) -> str:
    """From the environment; never shown, also not where it is refused."""
    value = os.environ.get(variable, "").strip()
    if value and not (value.isascii() and value.isprintable() and " " not in value):
        raise UsageError(
            f"{variable}: holds characters that cannot be sent", "set it again, without line ends"
        )
    return value
