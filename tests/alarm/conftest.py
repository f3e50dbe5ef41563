"""Servers that behave like GitHub and like a webhook, failures included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alarm.world import World
from tests.webserver import Hook, Tracker


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [
        name for name in os.environ if name.startswith(("GITHUB_", "HARNESS_")) or "proxy" in name.lower()
    ]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    with Tracker() as tracker:
        monkeypatch.setenv("GITHUB_TOKEN", Tracker.TOKEN)
        monkeypatch.setenv("GITHUB_REPOSITORY", Tracker.REPOSITORY)
        monkeypatch.setenv("GITHUB_API_URL", tracker.url)
        yield World(tmp_path, tracker)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with Hook() as server:
        monkeypatch.setenv("HARNESS_WEBHOOK_URL", server.url)
        yield server
