"""harness/night/quarantine.py."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.commands.cli import main
from harness.errors import QuarantineError
from harness.matrix import Cell
from harness.night.quarantine import Quarantine, read_quarantine
from tests.nights import green, red, write

ROOT = Path(__file__).parents[1]
CELL = "h100/dev/flaky"
TOMORROW = date.today() + timedelta(days=2)  # noqa: DTZ011 - a day of slack for any time zone
YESTERDAY = date.today() - timedelta(days=2)  # noqa: DTZ011


def entry(**changes: Any) -> dict[str, Any]:
    whole = {
        "cell": CELL,
        "reason": "a race in the loader",
        "owner": "ann",
        "expires": TOMORROW,
        "green_nights": 2,
    }
    return {**whole, **changes}


def quarantine(path: Path, *entries: dict[str, Any]) -> Path:
    file = path / "quarantine.yaml"
    file.write_text(yaml.safe_dump(list(entries)))
    return file


@pytest.fixture(autouse=True)
def _nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_TOKEN", "GITHUB_REPOSITORY", "HARNESS_WEBHOOK_URL", "GITHUB_RUN_ID", "GITHUB_SHA"):
        monkeypatch.delenv(name, raising=False)


def alarm(results: Path, file: Path, state: Path | None = None) -> int:
    more = ["--state", str(state)] if state else []
    return main(["alarm", str(results), "--dry-run", "--quarantine", str(file), *more])


def test_the_file_of_this_repository_can_be_read() -> None:
    read_quarantine(ROOT / "quarantine.yaml")


def test_the_entry_that_the_documentation_shows_can_be_read(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "github.md").read_text()
    shown = text.partition("```yaml\n- cell")[2].partition("```")[0].replace("<case>", "gpt")
    (tmp_path / "quarantine.yaml").write_text(f"- cell{shown}")
    (entry,) = read_quarantine(tmp_path / "quarantine.yaml").entries
    assert entry.matches(Cell("h100", "dev", "gpt"))


def test_without_a_file_nothing_is_in_quarantine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_quarantine(None) == Quarantine()


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(QuarantineError, match="cannot be read"):
        read_quarantine(tmp_path / "quarantine.yaml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reason": ""}, "reason: found ''"),
        ({"owner": None}, "owner: found None"),
        ({"owner": 3}, "owner: found 3"),
        ({"expires": "someday"}, "expected a date"),
        ({"expires": "2026-12-31"}, "expected a date"),
        ({"expires": None}, "expected a date"),
        ({"green_nights": 0}, "expected a number, 1 to 365"),
        ({"green_nights": True}, "expected a number"),
        ({"green_nights": "5"}, "expected a number"),
        ({"cell": "flaky"}, "expected HARDWARE/TRACK/CASE"),
        ({"cell": "h100/dev/"}, "expected HARDWARE/TRACK/CASE"),
        ({"cell": "no-such/dev/flaky"}, "hardware 'no-such' is none"),
        ({"cell": "h100/no-such/flaky"}, "track 'no-such' is none"),
        ({"until": TOMORROW}, "until is no key"),
    ],
)
def test_an_entry_that_nobody_could_be_held_to_is_refused_by_its_number(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    file = quarantine(tmp_path, entry(), entry(**change))
    with pytest.raises(QuarantineError, match="entry 2") as caught:
        read_quarantine(file)
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["cell", "reason", "owner", "expires", "green_nights"])
def test_no_key_of_an_entry_can_be_left_out(tmp_path: Path, key: str) -> None:
    whole = entry()
    del whole[key]
    with pytest.raises(QuarantineError, match=f"{key} is missing"):
        read_quarantine(quarantine(tmp_path, whole))


@pytest.mark.parametrize(
    "text", ["a: [", "just words", "{cell: x}", "- 3", "!!python/object:os.system {}", "- \x00"]
)
def test_a_file_that_is_no_list_of_entries_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "quarantine.yaml"
    file.write_text(text)
    with pytest.raises(QuarantineError, match=r"quarantine\.yaml"):
        read_quarantine(file)


def test_an_entry_counts_on_its_last_day_and_not_on_the_next(tmp_path: Path) -> None:
    found = read_quarantine(quarantine(tmp_path, entry(expires=date(2026, 12, 31))))
    cell = Cell.parse(CELL)
    assert found.holds(cell, date(2026, 12, 31)) is not None
    assert found.holds(cell, date(2027, 1, 1)) is None
    assert found.entry(cell) is not None


def test_a_pattern_matches_part_by_part(tmp_path: Path) -> None:
    found = read_quarantine(quarantine(tmp_path, entry(cell="*/dev/gpt_*")))
    assert found.entry(Cell("h100", "dev", "gpt_small")) is not None
    assert found.entry(Cell("h100", "lts", "gpt_small")) is None
    assert found.entry(Cell("h100", "dev", "moe")) is None
    everything = read_quarantine(quarantine(tmp_path, entry(cell="h100/*/*")))
    assert everything.entry(Cell("a100", "dev", "moe")) is None


# -- through `harness alarm` -----------------------------------------------------------------------


def test_a_red_cell_in_quarantine_is_shown_and_does_not_fail_the_night(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write(tmp_path / "results", red(CELL), green("h100/dev/sound"))
    assert alarm(results, quarantine(tmp_path)) == 1
    assert "1 red, 0 red in quarantine, 1 green" in capsys.readouterr().out
    assert alarm(results, quarantine(tmp_path, entry())) == 0
    assert "0 red, 1 red in quarantine, 1 green" in capsys.readouterr().out


def test_quarantine_of_one_cell_does_not_cover_another(tmp_path: Path) -> None:
    results = write(tmp_path / "results", red(CELL), red("h100/dev/other"))
    assert alarm(results, quarantine(tmp_path, entry())) == 1


@pytest.mark.parametrize("made", [red, green])
def test_an_expired_entry_fails_the_night_whatever_the_cell_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: Any
) -> None:
    results = write(tmp_path / "results", made(CELL))
    assert alarm(results, quarantine(tmp_path, entry(expires=YESTERDAY))) == 1
    said = capsys.readouterr().out
    assert f"expired on {YESTERDAY}" in said
    assert "owner ann" in said


def test_a_file_that_is_broken_is_said_at_once_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write(tmp_path / "results", red(CELL))
    assert alarm(results, quarantine(tmp_path, entry(owner=""))) == 2
    assert "owner: found ''" in capsys.readouterr().err


def nights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, *, file: Path | None = None
) -> list[int]:
    """Exit status of one night a letter: g green, r red, the same name again when it is doubled."""
    from tests.webserver import Hook

    file = file or quarantine(tmp_path, entry())
    ends = []
    with Hook() as hook:
        monkeypatch.setenv("HARNESS_WEBHOOK_URL", hook.url)
        for number, letter in enumerate(what):
            verdict = green(CELL, night=number) if letter in "gG" else red(CELL)
            results = write(tmp_path / "results", verdict)
            name = f"night-{number - 1 if letter == 'G' else number}"
            arguments = ["--state", str(tmp_path / "state.json"), "--quarantine", str(file), "--wait", "0"]
            ends.append(main(["alarm", str(results), "--night", name, *arguments]))
    return ends


def test_a_cell_that_was_green_long_enough_must_be_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nights(tmp_path, monkeypatch, "rgg") == [0, 0, 1]
    assert "has been green for 2 nights: take the entry out" in capsys.readouterr().out


def test_a_red_night_begins_the_count_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nights(tmp_path, monkeypatch, "grgrg") == [0, 0, 0, 0, 0]


def test_the_same_night_twice_is_one_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nights(tmp_path, monkeypatch, "gGg") == [0, 0, 1]


def test_green_nights_before_the_quarantine_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "none").mkdir()
    assert nights(tmp_path, monkeypatch, "ggg", file=quarantine(tmp_path / "none")) == [0, 0, 0]
    assert nights(tmp_path, monkeypatch, "g") == [0]
