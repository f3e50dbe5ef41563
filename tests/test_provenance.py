"""Which commit the harness says that it is of: its own, never that of whoever has installed it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.machine import provenance


def git(folder: Path, *words: str) -> str:
    said = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(folder), *words]
    return subprocess.run(said, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a package of our name in it, which is taken for this one."""
    package = tmp_path / "harness"
    (package / "machine").mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "theirs.py").touch()
    git(tmp_path, "init", "-q")
    monkeypatch.setattr(provenance, "__file__", str(package / "machine" / "provenance.py"))
    monkeypatch.setenv("GITHUB_SHA", "f" * 40)
    return tmp_path


def test_in_its_own_checkout_it_is_of_that_commit_and_says_when_files_were_changed(checkout: Path) -> None:
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "one")
    head = git(checkout, "rev-parse", "HEAD")
    assert provenance.commit_of_harness() == head
    (checkout / "harness" / "__init__.py").write_text("changed = True\n")
    assert provenance.commit_of_harness() == f"{head}+"


def test_installed_into_somebody_s_checkout_it_is_of_no_commit(checkout: Path) -> None:
    git(checkout, "add", "theirs.py")
    git(checkout, "commit", "-qm", "theirs")
    assert provenance.commit_of_harness() == ""
    assert provenance.commit(checkout) == git(checkout, "rev-parse", "HEAD")
