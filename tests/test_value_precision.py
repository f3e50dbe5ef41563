"""``value_precision: full`` of Megatron-LM's goldens; what was rounded or sampled; where figures are from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import goldens
from harness.checks import compare_curves
from harness.goldens import reading
from harness.goldens.golden import Golden
from harness.goldens.importing import plan
from harness.goldens.origins import origin
from harness.goldens.store import put
from harness.metrics import Series

CASE = "MODEL_ARGS: {--train-iters: 10, --save-interval: 5}\n"
NAME = "golden_values_dev_dgx_h100.json"


def metric(values: dict[int, float], **more: Any) -> dict[str, Any]:
    steps = list(values)
    head = {"start_step": steps[0], "end_step": steps[-1], "step_interval": max(1, steps[-1] - steps[-2])}
    return {**head, **more, "values": {str(step): value for step, value in values.items()}}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A case with a golden beside it, one metric in full and one rounded, as Megatron-LM has them."""
    folder = tmp_path / "tree" / "gpt" / "a_case"
    folder.mkdir(parents=True)
    (folder / "model_config.yaml").write_text(CASE)
    full, old = {1: 10.123456789, 2: 9.987654321}, {1: 10.12346, 2: 9.98765}
    content = {"lm loss": metric(full, value_precision="full"), "mtp_1 loss": metric(old)}
    (folder / NAME).write_text(json.dumps(content))
    return folder


def imported(tree: Path, store: Path, **told: str) -> Golden:
    put(store, plan(tree, store, told=told).planned)
    return goldens.read(store / "a_case" / NAME)


@pytest.mark.tools
def test_what_is_recorded_here_is_marked_as_in_full_and_megatrons_own_reader_takes_it(tmp_path: Path) -> None:
    import pydantic

    theirs = pydantic.create_model(  # GoldenValueMetric of its common.py, before and since it knows the mark
        "Metric", start_step=(int, ...), end_step=(int, ...), step_interval=(int, ...),
        values=(dict[int, int | float | str], ...),
    )  # fmt: skip
    path = tmp_path / NAME
    goldens.write(
        path, {"lm loss": Series.of("lm loss", [1, 2], [0.1 + 0.2, 1 / 3])}, goldens.provenance_of({}, {})
    )
    written = json.loads(path.read_text())["lm loss"]
    assert written["value_precision"] == "full"
    assert theirs.model_validate(written).model_dump()["values"] == {1: 0.1 + 0.2, 2: 1 / 3}
    assert goldens.read(path).rounded == frozenset()


def test_an_import_keeps_the_mark_of_each_metric(tree: Path, tmp_path: Path) -> None:
    found = imported(tree, tmp_path / "goldens")
    assert found.rounded == {"mtp_1 loss"}
    written = json.loads(found.path.read_text())
    assert [written[name].get("value_precision") for name in ("lm loss", "mtp_1 loss")] == ["full", None]
    assert found.series["lm loss"].values.tolist() == [10.123456789, 9.987654321]


def test_a_run_is_rounded_as_its_golden_was_and_no_more(tree: Path, tmp_path: Path) -> None:
    found = imported(tree, tmp_path / "goldens")
    run = {name: Series.of(name, [1, 2], [10.123456789, 9.987654321]) for name in found.series}
    alike = found.alike(run)
    assert alike["lm loss"].values.tolist() == [10.123456789, 9.987654321]
    assert alike["mtp_1 loss"].values.tolist() == [10.12346, 9.98765]


def test_of_a_golden_that_kept_every_fifth_step_the_others_are_not_asked_for(
    tree: Path, tmp_path: Path
) -> None:
    kept = {1: 10.0, 5: 9.0, 10: 8.0}
    (tree / NAME).write_text(json.dumps({"lm loss": metric(kept)}))
    found = imported(tree, tmp_path / "goldens")
    run = {"lm loss": Series.of("lm loss", range(1, 11), np.linspace(10, 8, 10).tolist())}
    assert found.alike(run)["lm loss"].steps.tolist() == [1, 5, 10]
    without_one = {"lm loss": Series.of("lm loss", [1, 10], [10.0, 8.0])}
    assert found.alike(without_one)["lm loss"].steps.tolist() == [1, 10]  # a check says that 5 is missing


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_found_between_the_steps_of_such_a_golden_too(
    tree: Path, tmp_path: Path, value: float
) -> None:
    (tree / NAME).write_text(json.dumps({"lm loss": metric({1: 10.0, 5: 9.0, 10: 8.0})}))
    found = imported(tree, tmp_path / "goldens")
    values = np.interp(range(1, 11), [1, 5, 10], [10, 9, 8])
    values[6] = value
    run = found.alike({"lm loss": Series.of("lm loss", range(1, 11), values.tolist())})
    (check,) = compare_curves(found.series, run, against="golden", lane="tolerance", first=1, last=10)
    assert not check.passed


def test_a_golden_of_our_own_is_compared_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / NAME
    line = Series.of("lm loss", [1, 5, 10], [1 / 3, 1 / 7, 1 / 9])
    goldens.write(path, {"lm loss": line}, goldens.provenance_of({}, {}))
    run = {"lm loss": Series.of("lm loss", range(1, 11), [1 / 3] * 10)}
    assert goldens.read(path).alike(run) == run


def test_another_precision_than_a_word_is_a_finding(tree: Path) -> None:
    (tree / NAME).write_text(json.dumps({"lm loss": metric({1: 1.0, 2: 2.0}, value_precision=5)}))
    (problem,) = reading.read(tree / NAME).problems
    assert (problem.kind, problem.key) == ("precision", "lm loss")


def test_where_figures_are_from_is_what_git_and_whoever_imports_say(tree: Path, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tree.parents[1]), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("remote", "add", "origin", "https://user:token@example.org/them/theirs")
    git("add", ".")
    git("commit", "--quiet", "-m", "goldens")
    commit = git("rev-parse", "HEAD")
    git("commit", "--quiet", "--allow-empty", "-m", "later")
    source = imported(tree, tmp_path / "goldens", licence="BSD", data="a corpus").provenance["source"]
    assert source == {
        "repository": "https://example.org/them/theirs", "commit": commit, "path": f"gpt/a_case/{NAME}",
        "licence": "BSD", "data": "a corpus",
    }  # fmt: skip


def test_a_file_that_is_a_link_to_elsewhere_is_from_where_it_lies(tree: Path, tmp_path: Path) -> None:
    elsewhere = (tree / NAME).rename(tmp_path / "elsewhere.json")
    (tree / NAME).symlink_to(elsewhere)
    for words in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", "-C", str(tree.parents[1]), *words], check=True)
    assert origin(tree / NAME, {})["path"] == f"gpt/a_case/{NAME}"


def test_what_the_settings_of_their_repository_name_is_not_started(tree: Path, tmp_path: Path) -> None:
    program, ran = tmp_path / "program", tmp_path / "ran"
    program.write_text(
        f"#!/bin/sh\ntouch '{ran}'\ncat > /dev/null\necho >&2\necho '[GNUPG:] SIG_CREATED x' >&2\n"
        "echo '-----BEGIN PGP SIGNATURE-----'\necho x\necho '-----END PGP SIGNATURE-----'\n"
    )
    program.chmod(0o755)

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tree.parents[1]), *who, *words], check=True, capture_output=True)

    git("init", "--quiet")
    git("add", ".")
    git("config", "gpg.program", str(program))
    git("config", "log.showSignature", "true")
    git("commit", "--quiet", "-S", "-m", "goldens")
    git("config", "core.fsmonitor", str(program))
    assert ran.exists()  # it was asked to sign
    ran.unlink()
    assert len(origin(tree / NAME, {})["commit"]) == 40
    assert not ran.exists()
