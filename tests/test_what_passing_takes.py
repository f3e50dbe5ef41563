"""What a pass takes: the resumed run went on, came to the same end, and curves and state were looked at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.cases import load_case
from harness.matrix import Cell
from harness.protocol.plan import Options
from harness.protocol.run import run_cell

if TYPE_CHECKING:
    from harness.verdict import Verdict

SCRIPT = Path(__file__).parent / "stand_ins" / "switchable_script.py"
WORDS = ["python", "train.py", "${EXIT_ITERS}", "${CHECKPOINT_SAVE_PATH}", "${OUTPUT_PATH}"]


class Cells:
    """One case, run again and again with other switches."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        monkeypatch.setenv("HARNESS_LEASES", str(folder / "leases"))

    def run(
        self, switches: str = "", *, protocol: str = "full", record: bool = False, **keys: Any
    ) -> Verdict:
        self._monkeypatch.setenv("SWITCH", switches)
        case = self.folder / "cases" / "mine" / "tiny"
        case.mkdir(parents=True, exist_ok=True)
        shutil.copy(SCRIPT, case / "train.py")
        command = {"train": WORDS, "resume": [*WORDS, "${CHECKPOINT_LOAD_PATH}"]}
        top = {key: keys.pop(key) for key in ("METRICS",) if key in keys}
        content = {
            "MODEL_ARGS": {"--train-iters": 20, "--save-interval": 5},
            "HARNESS": {"trainer": "command", "command": command, **keys}, **top,
        }  # fmt: skip
        (case / "model_config.yaml").write_text(json.dumps(content))
        return run_cell(
            Cell("cpu", "dev", "tiny"), case=load_case(case), cases=self.folder / "cases",
            goldens=self.folder / "goldens", results=self.folder / "results",
            options=Options(protocol=protocol, golden_update=record, keep_checkpoints=True),
        )  # fmt: skip

    def recorded(self, switches: str = "", **keys: Any) -> bool:
        self.run(switches, record=True, **keys)
        return (self.folder / "goldens" / "tiny").is_dir()

    def failing(self, switches: str = "", **keys: Any) -> dict[str, str]:
        verdict = self.run(switches, **keys)
        return {c.name: c.message for c in verdict.failures if c.name != "golden: is there"}


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cells:
    return Cells(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "switches", ["", "from_zero", "clock", "replays", "last_again", "history", "clock,history", "ends_at_15"]
)
def test_a_sound_script_is_recorded_and_green_however_it_counts_logs_and_ends(
    cells: Cells, switches: str
) -> None:
    assert cells.recorded(switches)
    for protocol in ("auto", "full"):
        verdict = cells.run(switches, protocol=protocol)
        assert verdict.passed, [(c.name, c.message) for c in verdict.failures]
        assert verdict.coverage is not None
        assert verdict.coverage.uncompared == 0
        assert verdict.coverage.entries.compared > 3


@pytest.mark.parametrize("protocol", ["auto", "full"])
@pytest.mark.parametrize(
    ("switches", "check", "said"),
    [
        ("lose_seen", "state: unknown", "seen: differs"),
        ("lose_m", "continuous: loss", ""),
        ("nothing_loaded", "resume: first step is 11", "training started again"),
        ("older", "resume: first step is 11", "from an older checkpoint"),
        ("resumed_ends_early", "resume: came to iteration 20", "ended after 17 of 20"),
        ("from_zero,lose_m", "continuous: loss", ""),
        ("replays,nothing_loaded", "resume: first step is 11", "training started again"),
        ("clock,lose_seen", "state: unknown", "seen: differs"),
    ],
)
def test_what_is_lost_is_red_with_and_without_an_exact_golden(
    cells: Cells, protocol: str, switches: str, check: str, said: str
) -> None:
    sound = ",".join(word for word in switches.split(",") if word in ("from_zero", "replays", "clock"))
    assert cells.recorded(sound)
    failing = cells.failing(switches, protocol=protocol)
    name = next((name for name in failing if name.startswith(check.replace("11", "1"))), check)
    assert name in failing
    assert said in failing[name]


@pytest.mark.parametrize("protocol", ["auto", "full"])
def test_where_no_checkpoint_would_show_it_logging_all_again_is_training_again(
    cells: Cells, protocol: str
) -> None:
    """Of a deterministic script that loads nothing, every value and the state at the end are right."""
    assert cells.recorded("unnumbered")
    failing = cells.failing("unnumbered,nothing_loaded", protocol=protocol)
    assert "training started again" in failing["resume: first step is 11"]


def test_logging_again_what_is_known_is_noted(cells: Cells) -> None:
    verdict = cells.run("last_again")
    (check,) = (c for c in verdict.checks if c.name.startswith("resume: first step"))
    assert (check.passed, check.message) == (
        True,
        "it went on at step 11; logged again, with equal values: 10",
    )


def test_an_end_before_n_counts_where_the_checkpoint_says_so(cells: Cells) -> None:
    verdict = cells.run("ends_at_15")
    (check,) = (c for c in verdict.checks if c.name == "resume: came to iteration 20")
    assert check.message == "both runs ended after 15 of 20, of their own accord; compared up to there"
    failing = cells.failing("ends_at_15,unnumbered")
    assert "does not say of which iteration it is" in failing["resume: came to iteration 20"]


def test_a_resumed_run_with_a_window_of_its_own_is_red(cells: Cells) -> None:
    assert "continuous: loss" in cells.failing("window")


def test_without_a_curve_of_training_nothing_passes(cells: Cells) -> None:
    said = cells.failing("time_only")["continuous: a curve of training"]
    assert said == "no curve of training was compared (metrics: iteration-time): log the loss of every step"


def test_a_metric_that_the_case_names_must_be_in_the_golden(cells: Cells) -> None:
    assert cells.recorded(METRICS=["loss"])
    golden = cells.folder / "goldens" / "tiny" / "golden_values_dev_cpu.json"
    golden.write_text(golden.read_text().replace('"loss"', '"other"'))
    for protocol in ("auto", "full"):
        failing = cells.failing(protocol=protocol, METRICS=["loss"])
        assert "the case names it" in failing["golden: loss"]


def test_a_rule_of_the_case_is_shown_with_its_reason_also_where_it_matches_nothing(cells: Cells) -> None:
    rules = [{"entry": "seen", "reason": "no matter"}, {"file": "*.log", "reason": "a log"}]
    verdict = cells.run("lose_seen", checkpoint={"ignore": rules})
    assert [c.name for c in verdict.failures] == ["golden: is there"]
    assert verdict.coverage is not None
    shown = [(rule.where, rule.entry, rule.file, rule.matched) for rule in verdict.coverage.rules]
    assert shown == [("case", "seen", "", 1), ("case", "*", "*.log", 0)]


@pytest.mark.parametrize("protocol", ["full", "auto"])
def test_training_that_never_repeats_itself_is_nondeterminism(cells: Cells, protocol: str) -> None:
    verdict = cells.run("noise", protocol=protocol)
    assert verdict.diagnosis is not None
    assert verdict.diagnosis.component == "nondeterminism"


@pytest.mark.parametrize(
    ("switches", "component"), [("sees_stop", "unknown"), ("sees_stop,rate", "lr-schedule")]
)
def test_a_script_whose_schedule_sees_where_it_stops_is_told_just_that(
    cells: Cells, switches: str, component: str
) -> None:
    verdict = cells.run(switches)
    assert verdict.diagnosis is not None
    assert verdict.diagnosis.component == component
    assert "because it is told to stop there (${EXIT_ITERS})" in verdict.diagnosis.evidence[1]


# -- not deterministic ---------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["", "noise"])
def test_of_a_case_that_is_not_deterministic_the_state_is_compared_all_the_same(
    cells: Cells, noise: str
) -> None:
    keys: dict[str, Any] = {"deterministic": False}
    sound = cells.run(noise, **keys)
    assert [c.name for c in sound.failures] == ["golden: is there"], [c.message for c in sound.failures]
    assert "repeat-2" in sound.timing
    for lost in ("lose_seen", "lose_m", "lose_w", "rng"):
        failing = cells.failing(f"{noise},{lost}", **keys)
        assert any(name.startswith("state: ") for name in failing), lost
