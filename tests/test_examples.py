"""Every code block of README and docs: run where that is cheap, read by what reads it, or named with why not.

Commands are parsed, and what nox and pytest are given is looked up, in ``test_docs.py``. Here they are run,
in a repository as its reader has it: with the smallest case of the README, its golden and its results.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cases import load_case
from harness.commands.cli import main
from harness.init.files import repository_files
from harness.matrix import HARDWARE, Cell
from harness.night.quarantine import read_quarantine
from harness.repository import Hardware, Track, read
from harness.trainers.megatron.checkout import checkout
from tests.test_docs import CASE, DOCS, PAGES, README, ROOT, TUTORIAL, blocks, environment, words
from tests.warm import started_warm, warm_python

pytestmark = [pytest.mark.tools, pytest.mark.torch]

SMALLEST = DOCS / "examples/plain/smallest"
#: Blocks that are no commands, in their order on the page: what becomes of each.
BLOCKS = {
    ("README.md", "text"): ["shown: what nox printed, shortened", "shown: class 15 of the bank, shortened"],
    ("README.md", "yaml"): ["here: run"],
    ("docs/cluster.md", "text"): ["test_cluster_sweep.py: is what a summary says, with other figures"],
    ("docs/cluster.md", "yaml"): ["test_cluster_workflow.py: is checked, and run"],
    ("docs/command-trainer.md", "yaml"): ["test_docs.py: is the file that ships", "here: read", "here: read"],
    ("docs/command-trainer.md", "python"): [
        "test_docs.py: is the file that ships", "test_log.py: is called so",
    ],
    ("docs/github.md", "json"): ["alarm/test_webhook.py: has the keys of what is told"],
    ("docs/github.md", "yaml"): ["test_elsewhere.py: is a caller like init's", "here: read"],
    ("docs/gitlab.md", "yaml"): ["test_gitlab.py: is checked"],
    ("docs/goldens.md", ""): [
        "shown: names of files", "shown: a line of a verdict", "shown: a line of a verdict",
        "here: its command; test_golden_tools.py: what it prints",
        "here: its command; test_golden_drift.py: what it prints",
    ],
    ("docs/how-to/accelerate.md", "yaml"): ["test_how_to.py: is the file that ships"],
    ("docs/how-to/accelerate.md", "diff"): ["shown: a line of the example"],
    ("docs/how-to/deepspeed.md", "yaml"): ["test_how_to.py: is the file that ships"],
    ("docs/how-to/lightning.md", "yaml"): ["test_how_to.py: is the file that ships"],
    ("docs/how-to/lightning.md", "python"): ["test_how_to.py: is of the example"],
    ("docs/how-to/mmengine.md", "yaml"): ["test_how_to.py: is the file that ships"],
    ("docs/how-to/torchtitan.md", "yaml"): ["test_how_to.py: has the options of init"],
    ("docs/how-to/kill-a-run.md", "python"): ["kills/test_kills.py: a script that saves so is green"],
    ("docs/how-to/stop-anywhere.md", ""): ["shown: last lines of two reports"],
    ("docs/how-to/transformers.md", "yaml"): ["test_how_to.py: is the file that ships"],
    ("docs/how-to/transformers.md", "text"): ["test_how_to.py: is what init says"],
    ("docs/how-to/add-a-case.md", "yaml"): ["here: its path"],
    ("docs/how-to/add-a-track.md", "toml"): ["here: read"],
    ("docs/how-to/add-hardware.md", "python"): ["here: read"],
    ("docs/megatron.md", "toml"): ["here: read"],
    ("docs/own-repository.md", "python"): ["here: is what init writes"],
    ("docs/own-repository.md", "toml"): ["here: read"],
    ("docs/own-repository.md", "diff"): ["test_own_repository.py: its transcript"] * 3,
    ("docs/own-repository.md", "text"): ["test_own_repository.py: its transcript"] * 7,
    ("docs/resume-bit-for-bit.md", "diff"): ["test_recipes.py: taken back"] * 13,
}  # fmt: skip
#: Beginnings of commands that are not run, and why. The first that fits counts.
NOT_RUN = {
    "pip install": "fetches packages; test_docs.py looks at what",
    ".nox/tests/bin/python -m pytest": "test_docs.py runs it",
    "harness init train.py": "test_own_repository.py goes that way",
    "harness run train": "test_own_repository.py goes that way",
    "nox": "makes environments and takes minutes; test_docs.py looks at what it selects",
    "pytest": "takes a minute; below, and test_docs.py, look at what it is given",
    "MEGATRON_LM_PATH=": "needs a checkout of Megatron-LM, and minutes",
    "python -m tests.megatron": "needs a checkout of Megatron-LM, and minutes",
    "harness run <case> --engine slurm": "needs a cluster; tests/slurm has one",
    "harness sweep": "needs a cluster; tests/slurm has one",
    "harness run <case> --trainer megatron": "needs a checkout of Megatron-LM",
    "export ": "sets variables of the reader's machine",
    "CASES=": "sets a variable of the reader's machine",
    "docker run ": "needs docker, a GPU and an image",
    "git add goldens": "is git's",
    "python -m benchmarks.numerics": "emulates processors, for minutes",
    "harness run --cases $": "needs a GPU and a checkout of Megatron-LM",
    "harness run <case> --hardware h100": "needs a GPU",
    "harness run cases/mine/tiny_lm --golden-update": "test_docs.py runs it with the tutorial",
    "harness run cases/mine/tiny_lm   ": "test_docs.py runs it with the tutorial",
    "harness goldens import $MEGATRON_LM_PATH": "needs a checkout; test_golden_tools.py has a made one",
    "harness goldens lint $MEGATRON_LM_PATH": "needs a checkout; test_golden_tools.py has a made one",
    "harness cases lint $MEGATRON_LM_PATH": "needs a checkout; test_case_tools.py has a made one",
    "harness goldens drift --from lts": "needs runs of two tracks; test_golden_drift.py makes them",
    "harness checkpoint alter ": "needs a checkpoint; tests/ablation makes some of every format",
    "harness cross ": "takes minutes; test_cross.py crosses small cases",
    "harness run cases/mine/tiny_lm --protocol crash": "kills/test_kills.py kills scripts of its own",
    "harness run <case> --protocol chain": "needs several saves; test_stops.py has such a script",
    "python -m tests.experiments": "takes a quarter of an hour; its own tests try parts of it",
    "harness github ": "below, in this repository",
    "harness gitlab ": "below, in this repository",
}
#: What stands for something of the reader's.
NAMED = {
    "<case>": "smallest",
    " A B": " cpu/dev/smallest results/cpu/dev/smallest",
    "cases/mine/tiny_lm": SMALLEST,
    "cases lint cases": "cases lint test_cases",
}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def languages(page: Path) -> list[str]:
    found = re.findall(r"^ *```(\w*)\n.*?^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return list(dict.fromkeys(found))


def typed(page: Path) -> list[str]:
    """The lines of its shell blocks, without comments that stand alone."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def reason(command: str) -> str | None:
    return next((why for start, why in NOT_RUN.items() if command.startswith(start)), None)


def cheap() -> list[str]:
    """The commands that are run here, in the order of the pages."""
    lines = [line for page in PAGES if page != TUTORIAL for line in typed(page)]
    return [line for line in dict.fromkeys(lines) if reason(line) is None]


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository with the case of the README, which has been recorded and run; it is the present folder."""
    folder = tmp_path_factory.mktemp("readers")
    case = folder / "test_cases" / "mine" / "smallest"
    shutil.copytree(SMALLEST, case)
    before = {name: os.environ.get(name) for name in ("HARNESS_LEASES", "CI")}
    os.environ["HARNESS_LEASES"] = str(folder / "leases")
    os.environ.pop("CI", None)
    here = Path.cwd()
    with warm_python(tmp_path_factory.mktemp("warm")) as door:
        (text,) = blocks(README, "yaml")
        (case / "model_config.yaml").write_text(started_warm(text, door))
        (folder / ".gitignore").write_text("goldens/\nresults*/\nleases/\n__pycache__/\n")
        for line in ("init -q", "add .", "-c user.name=a -c user.email=a@example.com commit -qm a"):
            subprocess.run(["git", *line.split()], cwd=folder, env=environment(), check=True)
        os.chdir(folder)
        yield folder
    os.chdir(here)
    os.environ.update({name: value for name, value in before.items() if value is not None})
    if before["HARNESS_LEASES"] is None:
        del os.environ["HARNESS_LEASES"]


@pytest.fixture(scope="module")
def statuses(readers: Path) -> list[int]:
    """How its runs ended: one that records, one against the golden, one with an uninterrupted run."""
    found = [main(["run", "test_cases/mine/smallest", *more]) for more in (
        ["--golden-update"], [], ["--protocol", "full"],
    )]  # fmt: skip
    for results in ("results-old", "results-new"):
        shutil.copytree(readers / "results", readers / results)
    return found


# -- every block is known --------------------------------------------------------------------------


def test_something_becomes_of_every_block_that_is_no_command() -> None:
    found = {
        (name(page), language): len(blocks(page, language))
        for page in PAGES
        for language in languages(page)
        if page != TUTORIAL and language != "sh"  # of the tutorial all is run, and compared
    }
    assert found == {key: len(fates) for key, fates in BLOCKS.items()}


def test_every_command_is_run_or_says_why_not() -> None:
    assert [line for line in cheap() if not line.startswith("harness ")] == []
    said = "\n".join(line for page in PAGES for line in typed(page))
    assert [start for start in NOT_RUN if start not in said] == []


def test_a_block_that_nobody_knows_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "new.md"
    text = "```ini\nx\n```\n\n```sh\nmake\nharness goldens list\n```\n"
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *more: text if path == page else read(path, *more))
    monkeypatch.setattr("tests.test_examples.PAGES", [*PAGES, page])
    with pytest.raises(AssertionError, match="ini"):
        test_something_becomes_of_every_block_that_is_no_command()
    with pytest.raises(AssertionError, match="make"):
        test_every_command_is_run_or_says_why_not()


# -- the smallest case -----------------------------------------------------------------------------


def test_the_smallest_case_of_the_readme_is_the_one_that_ships_and_is_green(statuses: list[int]) -> None:
    (text,) = blocks(README, "yaml")
    assert text + "\n" == (SMALLEST / "model_config.yaml").read_text()
    assert statuses == [1, 0, 0]


def test_with_the_stop_as_the_schedules_length_it_is_red(readers: Path, tmp_path: Path) -> None:
    case = tmp_path / "cases" / "mine" / "wrong"
    shutil.copytree(readers / "test_cases/mine/smallest", case)
    text = (case / "model_config.yaml").read_text()
    assert text.count("${TRAIN_ITERS}") == 2
    (case / "model_config.yaml").write_text(text.replace("${TRAIN_ITERS}", "${EXIT_ITERS}"))
    assert main(["run", str(case), "--results", str(tmp_path / "results")]) == 1
    (verdict,) = (tmp_path / "results").rglob("verdict.json")
    assert "it is told to stop there (${EXIT_ITERS})" in verdict.read_text()


@pytest.mark.parametrize("command", cheap())
def test_a_command_does_what_its_page_says(
    command: str, statuses: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert statuses
    for stands, value in NAMED.items():
        command = command.replace(stands, str(value))
    assert main(words(command)[1:]) == 0, capsys.readouterr()


# -- what else is typed ----------------------------------------------------------------------------


def test_the_jobs_of_ci_come_of_the_folder_of_cases_as_their_blocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        line for page in ("github.md", "gitlab.md") for line in typed(DOCS / page) if "test_cases" in line
    ]
    assert len(lines) == 4
    monkeypatch.chdir(ROOT)
    for line in lines:
        told = words(line)[1:]
        if "junit" in told:  # whose folder of results is of a job
            (tmp_path / "results").mkdir()
            told[told.index("results")] = str(tmp_path / "results")
        assert main(told) == 0, told
    assert '"include"' in capsys.readouterr().out


def test_what_pytest_and_python_are_given_elsewhere_is_there() -> None:
    for page in PAGES:
        for line in typed(page):
            given = words(line)
            if given[:2] == ["python", "-m"] and page != TUTORIAL:
                assert importlib.util.find_spec(given[2]) is not None
            if given[0] == "pytest":
                assert (ROOT / given[1]).exists()
                for cell in (word.partition("=")[2] for word in given if word.startswith("--cell=")):
                    assert Cell.parse(cell).case == CASE


def test_the_transcripts_show_commands_of_the_page() -> None:
    shown = [line for block in blocks(DOCS / "goldens.md", "") for line in block.splitlines()]
    commands = [words(line.removeprefix("$ "))[1:3] for line in shown if line.startswith("$ ")]
    typed_there = [words(line)[1:3] for line in typed(DOCS / "goldens.md")]
    assert commands
    assert all(command in typed_there for command in commands)


# -- what is read ----------------------------------------------------------------------------------


def test_what_a_case_may_say_besides_is_read(tmp_path: Path) -> None:
    whole, *parts = blocks(DOCS / "command-trainer.md", "yaml")
    folder = tmp_path / "mine" / "case"
    folder.mkdir(parents=True)
    added = [line for part in parts for line in part.splitlines() if line != "HARNESS:"]
    (folder / "model_config.yaml").write_text("\n".join([whole, *added]) + "\n")
    harness = load_case(folder).harness
    assert harness.checkpoint is not None
    assert [rule.reason for rule in harness.checkpoint.ignore][-1] == "a log; each run has its own part"
    assert harness.metrics is not None
    assert len(harness.metrics.stdout) == 2


def test_the_quarantine_is_read(tmp_path: Path) -> None:
    _, text = blocks(DOCS / "github.md", "yaml")
    (tmp_path / "quarantine.yaml").write_text(text)
    (entry,) = read_quarantine(tmp_path / "quarantine.yaml").entries
    assert (entry.owner, entry.green_nights) == ("ann", 5)


def test_the_schema_that_an_editor_is_told_of_is_there() -> None:
    (line,) = blocks(DOCS / "how-to/add-a-case.md", "yaml")
    a_case = next((ROOT / "test_cases").rglob("model_config.yaml"))
    assert (a_case.parent / line.partition("$schema=")[2].strip()).resolve().is_file()


def test_the_groups_of_a_track_are_like_ours() -> None:
    (text,) = blocks(DOCS / "how-to/add-a-track.md", "toml")
    ours = (ROOT / "pyproject.toml").read_text()
    shape = re.sub(r"==…", "==VERSION", text).replace("[…]", "[EXTRA]").replace("next", "dev")
    theirs = re.sub(r"(?<===)[\d.]+", "VERSION", ours)
    for line in shape.splitlines():
        key, _, value = line.partition(" = ")
        packages = re.findall(r'"([\w-]+)[\[=]', value)
        (found,) = re.findall(rf"^{key} = \[.*?\]$", theirs, re.MULTILINE | re.DOTALL)
        assert all(package in found for package in packages), found
        assert all(group in found for group in re.findall(r'include-group = "([\w-]+)"', value)), found


def test_the_row_of_hardware_is_like_ours() -> None:
    (text,) = blocks(DOCS / "how-to/add-hardware.md", "python")
    row = ast.parse("{" + text + "}", mode="eval").body
    assert isinstance(row, ast.Dict)
    (made,) = row.values
    assert isinstance(made, ast.Call)
    hardware = Hardware(*(ast.literal_eval(value) for value in made.args))
    assert hardware.platform == "dgx_b200"
    assert type(hardware) is type(HARDWARE["h100"])


def test_the_checkout_that_pyproject_names_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = blocks(DOCS / "megatron.md", "toml")
    (tmp_path / "mine").mkdir()
    (tmp_path / "megatron-lm").mkdir()
    (tmp_path / "mine" / "pyproject.toml").write_text(text)
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.delenv("MEGATRON_LM_PATH", raising=False)
    assert checkout().resolve() == (tmp_path / "megatron-lm").resolve()


def test_the_tables_of_a_repository_of_ones_own_are_read(tmp_path: Path) -> None:
    (text,) = blocks(DOCS / "own-repository.md", "toml")
    (tmp_path / "pyproject.toml").write_text(text)
    found = read(tmp_path)
    assert found.tracks == {"nightly": Track("2.13.0", "train"), "container": Track("", None)}
    assert found.hardware["l40s"] == Hardware("l40s", ("L40S",))
    assert found.hardware["h100"] == HARDWARE["h100"]


def test_the_noxfile_of_a_repository_of_ones_own_is_what_init_writes(tmp_path: Path) -> None:
    (text,) = blocks(DOCS / "own-repository.md", "python")
    (tmp_path / ".git").mkdir()
    repository_files(tmp_path, ())
    written = (tmp_path / "noxfile.py").read_text()
    named = re.sub(r'"resume-harness[^"]*"', '"resume-harness"', written)
    assert text.split() == named.split()  # formatters of Markdown set a line free
