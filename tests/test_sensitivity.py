"""``harness sensitivity``: what a script's resumed run depends on, tried on the script itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.ablation import Alterable
from harness.commands.cli import main
from harness.protocol.certificate import Certificate, Line, grouped, kind
from harness.verdict.reading import read_verdict
from tests.plain_case import write_case

CPU = ("--hardware", "cpu")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A case whose script needs no torch; it saves what nobody reads, too."""
    folder = tmp_path / "test_cases" / "a" / "one"
    write_case(folder)
    script = folder / "plain_script.py"
    text = script.read_text("utf-8")
    saved = 'state["rng_state"] = noise.getstate()'
    assert saved in text
    script.write_text(
        text.replace(saved, f'{saved}\n            state["notes"] = {{"by": "me", "of": None, "at": None}}')
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))
    monkeypatch.delenv("CI", raising=False)
    return tmp_path


def _groups(out: str) -> dict[str, dict[str, Any]]:
    return {name: group for group in json.loads(out)["groups"] for name in group["names"]}


def test_a_sound_case(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each entry that is used is caught at the first iteration; what is saved for nobody is not read."""
    assert main(["run", *CPU, "--golden-update"]) == 1
    capsys.readouterr()
    assert main(["sensitivity", "one", *CPU, "--json"]) == 0
    out = capsys.readouterr().out
    groups = _groups(out)
    assert next(iter(groups)) == "rng_state.1"  # what no loss shows at once is tried first
    outcomes = {name: (group["outcome"], group["step"]) for name, group in groups.items()}
    assert outcomes == {
        "iteration": ("caught", outcomes["iteration"][1]),
        "model.weight": ("caught", 6),
        "optimizer.momentum": ("caught", 6),
        "rng_state.1": ("caught", 6),
        "rng_state.0": ("cannot", None),
        "rng_state.2": ("cannot", None),
        "notes.by": ("unread", None),
        "notes.of": ("cannot", None),
        "notes.at": ("cannot", None),
    }
    assert groups["notes.of"] is groups["notes.at"]  # a line for all of which the same is to be said
    said = "of 5 groups 4 matter and are caught, 1 is not read, 4 entries cannot be altered"
    assert json.loads(out)["sentence"] == said
    folder = place / "results" / "cpu" / "dev" / "one"
    assert said in (folder / "sensitivity.md").read_text("utf-8").replace("Of", "of")
    assert read_verdict(folder / "verdict.json").provenance["sensitivity"] == said
    assert not (folder / "checkpoints").exists()


def test_one_entry_of_a_case_that_fails(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that a diagnosis names: what a script forgets changes nothing; what it reads does."""
    case = place / "test_cases" / "a" / "one" / "model_config.yaml"
    case.write_text(case.read_text("utf-8").replace('--load, "', '--forgets, optimizer, --load, "'))
    names = ("optimizer.momentum", "model.weight")
    status = main(["sensitivity", "one", *CPU, "--json", "--entry", names[0], "--entry", names[1]])
    assert status == 1
    groups = _groups(capsys.readouterr().out)
    assert [groups[name]["outcome"] for name in names] == ["unread", "caught"]


def test_what_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensitivity", "one", *CPU, "--entry", "nothing"]) == 2
    assert "nothing: no entry of the checkpoint of 5" in capsys.readouterr().err
    assert main(["sensitivity", "one", *CPU, "--budget", "-1"]) == 2
    assert "--budget -1: expected seconds, above 0" in capsys.readouterr().err


def test_a_sentence_and_a_page() -> None:
    names = tuple(f"layers.{i}.weight" for i in range(3))
    lines = (
        Line("weights", names, "caught", 6, "resume: loss"),
        Line("optimizer", ("a|b",), "missed"),
        Line("rng", ("x", "y"), "untried", None, "60 s were used up"),
    )
    found = Certificate(5, 10, lines, 10, 2.0)
    assert found.sentence() == "of 2 groups 2 matter, 1 of them are caught, 1 is not tried"
    assert kind(names[0]) == "layers.#.weight"
    page = found.page("cpu/dev/one")
    assert "| weights | layers.#.weight (3) | caught | 6 | resume: loss |" in page
    assert "| optimizer | a\\|b | not caught |  |  |" in page


def test_short_of_time_tensors_are_not_altered_with_flags() -> None:
    """A trainer that refuses another ``amsgrad`` would say nothing of the moments altered with it."""
    entries = [
        Alterable(name, component, dtype, 8, "ckpt.pt")
        for name, component, dtype in (
            ("model.0.weight", "weights", "float32"),
            ("model.0.bias", "weights", "float32"),
            ("optimizer.state.0.exp_avg", "optimizer", "float32"),
            ("optimizer.state.0.exp_avg_sq", "optimizer", "float32"),
            ("optimizer.amsgrad", "optimizer", "Python bool"),
            ("optimizer.decoupled", "optimizer", "Python bool"),
            ("rng.0", "rng", "text"),
        )
    ]
    assert len(grouped(entries, 7)) == 7
    assert grouped(entries, 1) == [
        ("rng", ("rng.0",)),
        ("optimizer", ("optimizer.state.0.exp_avg", "optimizer.state.0.exp_avg_sq")),
        ("optimizer", ("optimizer.amsgrad", "optimizer.decoupled")),
        ("weights", ("model.0.weight", "model.0.bias")),
    ]


def test_where_there_is_no_time(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One is tried always, so that there is something to show; of the others it is said why they are not."""
    assert main(["sensitivity", "one", *CPU, "--json", "--budget", "0.1"]) == 1  # and there is no golden
    groups = json.loads(capsys.readouterr().out)["groups"]
    tried = [group for group in groups if group["outcome"] != "cannot"]
    assert [group["outcome"] for group in tried] == ["caught"] + ["untried"] * (len(tried) - 1)
    assert {group["said"] for group in tried[1:]} == {"no time was left for it of 0.1 s"}
    left = (place / "results" / "cpu" / "dev" / "one" / "checkpoints").iterdir()
    assert not [path.name for path in left if "altered" in path.name]
