"""Modules stay short enough to be read at one go."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("folder", "most"), [("harness", 400), ("tests", 600)])
def test_no_module_is_longer_than_can_be_read_at_one_go(folder: str, most: int) -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    assert len(lines) > 50
    too_long = {name: f"{count} lines, at most {most}" for name, count in lines.items() if count > most}
    assert too_long == {}
