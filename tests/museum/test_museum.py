"""The museum's table, and one exhibit in the tests' own environment."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.museum import __main__ as museum
from tests.museum import running
from tests.museum.exhibits import EXHIBITS, SCRIPTS, Release


def test_every_exhibit_has_a_script_and_is_pinned() -> None:
    assert len({exhibit.name for exhibit in EXHIBITS}) == len(EXHIBITS)
    for exhibit in EXHIBITS:
        assert (SCRIPTS / exhibit.script).is_file()
        assert exhibit.faulty or exhibit.sound
        assert bool(exhibit.components) == bool(exhibit.faulty)
        for release in (exhibit.faulty, exhibit.sound):
            assert all("==" in pin or "<" in pin for pin in (release.pins if release else ())
                       if pin not in ("tensorboard", "six"))  # fmt: skip
    assert {exhibit.script for exhibit in EXHIBITS} == {file.name for file in SCRIPTS.glob("*.py")}


@pytest.mark.torch
def test_a_faulty_release_is_caught_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "python_of", lambda *_: Path(sys.executable))
    [exhibit] = [one for one in EXHIBITS if one.name == "scheduler-overwrites-the-rate"]
    found = running.visit(replace(exhibit, sound=None), tmp_path, tmp_path, "")
    assert not found.wrong
    assert (found.component, found.first) == ("lr-schedule", 21)
    assert "1 of 1 caught, 1 named rightly" in museum.markdown([found])


@pytest.mark.torch
def test_a_release_that_is_called_faulty_and_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "python_of", lambda *_: Path(sys.executable))
    [exhibit] = [one for one in EXHIBITS if one.name == "scheduler-overwrites-the-rate"]
    sound = Release((), ("--warm-up", "scheduler-first"))
    found = running.visit(replace(exhibit, faulty=sound, sound=None), tmp_path, tmp_path, "")
    assert "0 checks failed" in found.wrong[0]
    assert found.line().startswith("WRONG")
