"""The pages of frameworks show what ships and what init says; nox -s frameworks runs their scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.commands.cli import main
from harness.init import advice
from harness.init.frameworks import FRAMEWORKS
from tests.frameworks.cells import FRAMEWORKS as RUN
from tests.test_docs import DOCS, blocks
from tests.test_init_frameworks import EXAMPLES, HARD_CODED, SHIPPED

#: Needs a GPU, and has no example.
UNRUN = {"torchtitan"}


def page(name: str) -> Path:
    (found,) = (one.page for one in FRAMEWORKS if one.name == SHIPPED[name])
    return DOCS.parent / found


@pytest.mark.parametrize("name", SHIPPED)
def test_a_page_shows_the_case_that_ships(name: str) -> None:
    (shown,) = blocks(page(name), "yaml")
    assert shown + "\n" == (EXAMPLES / name / "model_config.yaml").read_text()
    assert f"examples/{name}/train.py" in page(name).read_text()


def test_every_framework_has_a_page_and_every_page_an_example_that_is_run() -> None:
    known = {one.name for one in FRAMEWORKS if one.page}
    assert {one.example for one in RUN} == set(SHIPPED)
    assert known == {*SHIPPED.values(), *UNRUN}
    assert all((DOCS.parent / one.page).is_file() for one in FRAMEWORKS if one.page)


def test_what_init_says_of_a_script_is_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(advice, "installed", lambda package: 5)
    (tmp_path / ".git").mkdir()
    text = HARD_CODED.replace(", set_seed\nset_seed(1)", "")
    text = text.replace("epochs=3,", 'epochs=3, save_strategy="epoch",')
    (tmp_path / "train.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "train.py"]) == 0
    said = capsys.readouterr().out
    (shown,) = blocks(page("transformers/finetune"), "text")
    assert shown in said


def test_the_options_of_torchtitan_are_those_of_its_page() -> None:
    (titan,) = (one for one in FRAMEWORKS if one.name == "torchtitan")
    (shown,) = blocks(DOCS.parent / titan.page, "yaml")
    for word in titan.parser_words:
        assert word in shown


def test_the_lines_that_keep_lightnings_random_streams_are_of_its_example() -> None:
    (shown,) = blocks(page("lightning/trainer"), "python")
    script = (EXAMPLES / "lightning/trainer/train.py").read_text()
    bare = script.replace(" -> None", "").replace("  # Lightning saves no random streams", "")
    assert all(line.strip() in bare for line in shown.splitlines())
