"""``harness cases``: a whole checkout classified, whatever lies about in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.case_tools.known import known_cases
from harness.commands.cli import main
from tests.checkouts import CASES, LONG, Checkout, make


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make(tmp_path_factory.mktemp("checkout") / "Megatron-LM")


def case(folder: Path, text: str = "MODEL_ARGS:\n  --train-iters: 20\n  --save-interval: 10\n") -> Path:
    folder.mkdir(parents=True)
    (folder / "model_config.yaml").write_text(text)
    return folder


def test_every_case_of_a_checkout_is_classified(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cases", "lint", str(checkout.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cases"] == checkout.states
    assert sum(found["cases"].values()) == 333
    assert found["findings"] == []
    assert sum(found["reasons"].values()) == checkout.states["not run"]


def test_what_is_not_run_is_listed_with_the_reason(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cases", "list", str(checkout.cases), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == sum(CASES.values())
    for row in rows:
        assert (row["state"] == "not run") == (
            row["test_type"] in ("frozen-start", "release", "checkpoint-consistency")
        )
        if row["state"] == "not run":
            assert row["remark"].startswith(("MODE", "TEST_TYPE")), row
        else:
            # A regular test is not resumed; how many GPUs a case gets is what its recipe says.
            assert (row["n"], row["world_size"]) == (20, 8)
            assert row["k"] == (None if row["test_type"] == "regular" else 10)
    named = {row["name"] for row in rows}
    assert {LONG, "multimodal-llava-mcore_te_tp1_pp1"} <= named
    assert any(row["remark"] == "--allow-scripts, for its BEFORE_SCRIPT" for row in rows)


def test_checkout_its_folder_of_cases_and_a_family_find_the_same_cases(checkout: Checkout) -> None:
    whole = known_cases(checkout.root)
    assert [c.path for c in whole.all] == [c.path for c in known_cases(checkout.cases).all]
    gpt = known_cases(checkout.cases / "gpt").all
    assert {c.name for c in gpt} == {c.name for c in whole.all if c.path.parent == checkout.cases / "gpt"}
    assert [c.name for c in known_cases(gpt[0].path).all] == [gpt[0].name]
    assert [c.name for c in known_cases(gpt[0].path / "model_config.yaml").all] == [gpt[0].name]


def test_list_is_a_table_with_one_line_per_case(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cases", "list", str(checkout.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 333
    assert lines[0].split()[:3] == ["case", "family", "state"]


def test_broken_cases_are_found_and_the_others_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case(tmp_path / "gpt" / "good")
    case(tmp_path / "gpt" / "misspelt", "MODEL_ARG:\n  --train-iters: 20\n")
    case(tmp_path / "gpt" / "no_number", "MODEL_ARGS:\n  --train-iters: many\n")
    case(tmp_path / "gpt" / "nobody", "HARNESS:\n  trainer: lightning\n")
    case(tmp_path / "gpt" / "not_yaml", "MODEL_ARGS: [")
    case(tmp_path / "gpt" / "two words")
    case(tmp_path / "moe" / "good")
    (tmp_path / "gpt" / "folder" / "model_config.yaml").mkdir(parents=True)
    (tmp_path / "gpt" / "loop").symlink_to(tmp_path)
    (tmp_path / "gpt" / "turning").mkdir()
    (tmp_path / "gpt" / "turning" / "model_config.yaml").symlink_to("model_config.yaml")
    assert main(["cases", "lint", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["cases"] == {"run": 2, "unreadable": 7}
    said = {(finding["case"], finding["kind"]): finding["message"] for finding in found["findings"]}
    assert len(said) == 9
    assert "did you mean" not in said["gpt/misspelt", "unreadable"]  # that is advice
    assert said["gpt/misspelt", "unreadable"] == "MODEL_ARG: no such key is known"
    assert said["gpt/no_number", "unreadable"].startswith("--train-iters: found 'many'")
    assert "found 'lightning', expected native or" in said["gpt/nobody", "unreadable"]
    assert "is not YAML" in said["gpt/not_yaml", "unreadable"]
    assert "cannot be the name of a case" in said["gpt/two words", "unreadable"]
    assert "is no regular file" in said["gpt/folder", "unreadable"]
    assert "cannot be read" in said["gpt/turning", "unreadable"]
    assert "is not followed" in said["gpt/loop", "link"]
    assert said["moe/good", "name"] == "a case of the same name is at gpt/good: rename one"


def test_folder_without_a_case_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cases", "list", str(tmp_path)]) == 3
    assert "holds no case" in capsys.readouterr().err
