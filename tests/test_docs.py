"""README and docs/: their commands run, their links lead somewhere, the site builds."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from harness.commands.cli import main, parser

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
TUTORIAL, README, TAKING_OVER = DOCS / "tutorial.md", ROOT / "README.md", DOCS / "taking-over.md"
#: Beginnings of the commands of README and tutorial that are not run here, and why. They are parsed.
NOT_RUN = {
    "pip install ": "fetches packages",
    "nox": "makes environments and takes minutes; unit.yml runs it",
    "export MEGATRON_LM_PATH": "names what is not on this machine",
    "harness run": "needs GPUs, or is only named",
    "harness sensitivity": "resumes once for each group of a checkpoint; tests/test_sensitivity.py does",
    "harness cross": "runs a case twice for each pair; tests/test_cross.py does",
    "harness sweep": "needs a cluster; tests/slurm/test_sweep.py has one",
    "harness init train.py": "needs a script of the reader's; test_own_repository.py goes that way",
    "harness goldens approve results/": "needs results of a sweep",
    "harness goldens drift": "needs results of two environments",
    "pytest test_cases --cell=cpu/dev/<case>": "takes a minute; unit.yml runs it",
}
#: A track that the reader of a how-to adds.
READERS_OWN = {"next"}
CASE = "gpt3_tp1_pp1_resume_torch_dist"


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page, also those within lists."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [
        "\n".join(line.removeprefix(indent) for line in text.splitlines())
        for indent, language, text in found
        if language in languages
    ]


def commands(page: Path) -> list[str]:
    """What is typed: the lines of its shell blocks, and what stands in code spans and is a command."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line.strip()]
    prose = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`((?:harness|nox|pytest) [^`]+)`", prose)
    return lines + [span for span in spans if "…" not in span]


def reason(command: str) -> str | None:
    return next((why for start, why in NOT_RUN.items() if command.startswith(start)), None)


def words(command: str) -> list[str]:
    """A command as its program gets it: no comment, names for what stands in angle brackets."""
    named = command.replace("<case or folder>", CASE).replace("<case>", CASE).replace("<image>", "image")
    return shlex.split(named, comments=True)


def environment() -> dict[str, str]:
    names = [
        name for name in os.environ if name.startswith(("GITHUB_", "HARNESS_", "MEGATRON")) or name == "CI"
    ]
    env = {name: value for name, value in os.environ.items() if name not in names}
    env = {name: value for name, value in env.items() if "proxy" not in name.lower()}
    return env | {"NO_COLOR": "1", "COLUMNS": "100", "NO_MKDOCS_2_WARNING": "1"}


def run(*argv: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=cwd, env=environment() | more, capture_output=True, text=True, check=False
    )


# -- commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_harness_is_one_that_its_parser_takes(page: Path) -> None:
    refused, text = [], page.read_text()
    for command in commands(page):
        given = words(command)
        if given[:1] != ["harness"] or given[1:] == ["--help"]:
            continue
        given = [word.partition(";")[0] for word in given]
        asked = "--help" in given
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            try:
                parser().parse_args(given[1:])
            except SystemExit as ended:
                # In a sentence a command may be named without all that it needs.
                named = "arguments are required" in said.getvalue() and f"`{command}`" in text
                if not (named or (asked and ended.code == 0)):
                    refused.append((command, said.getvalue().splitlines()[-1]))
    assert refused == []


def test_a_command_that_nobody_takes_would_be_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nharness run case --no-such-option\n```\n")
    with pytest.raises(AssertionError, match="no-such-option"):
        test_every_command_of_the_harness_is_one_that_its_parser_takes(page)


def nox_words() -> list[tuple[str, ...]]:
    found = set()
    for page in PAGES:
        for command in commands(page):
            given = words(command)
            if given[:1] == ["nox"] and not set("$[|…") & set(command) and not READERS_OWN & set(given):
                found.add(tuple(given[1:]))
    return sorted(found)


@pytest.mark.parametrize("given", nox_words(), ids=" ".join)
def test_every_command_of_nox_selects_something(given: tuple[str, ...]) -> None:
    before = given[: given.index("--")] if "--" in given else given
    listing = before if {"-l", "--list"} & set(before) else ("-l", *before)
    done = run(sys.executable, "-m", "nox", *listing)
    assert done.returncode == 0, done.stderr
    assert "* " in done.stdout or '"session"' in done.stdout


def pytest_words() -> list[tuple[str, ...]]:
    found = set()
    for page in (README, TUTORIAL, ROOT / "CONTRIBUTING.md"):
        for command in commands(page):
            given = words(command)
            if given[:1] == ["pytest"]:
                found.add(tuple(given[1:]))
            elif given[:1] == ["nox"] and "--" in given and "tests" not in given:
                found.add(("test_cases", f"--cell=cpu/dev/{CASE}", *given[given.index("--") + 1 :]))
    return sorted(found)


@pytest.mark.parametrize("given", pytest_words(), ids=" ".join)
def test_what_pytest_is_given_is_known_to_it_and_collects_the_cell(given: tuple[str, ...]) -> None:
    plugin = ("-p", "no:cacheprovider", *(() if installed() else ("-p", "harness.plugin")))
    done = run(sys.executable, "-m", "pytest", "--collect-only", "-q", *plugin, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"cpu/dev/{CASE}" in done.stdout


def words_for_the_tests() -> list[tuple[str, ...]]:
    found = set()
    for page in PAGES:
        for command in commands(page):
            given = words(command)
            named = given[given.index("--") + 1 :] if "--" in given else []
            if given[:3] == ["nox", "-s", "tests"] and named and not named[0].startswith("-"):
                found.add(tuple(named))
    return sorted(found)


SECONDS = 10  # of processor time, which other work on the machine does not change


@pytest.mark.parametrize(
    "page", [ROOT / "CONTRIBUTING.md", DOCS / "taking-over.md"], ids=lambda page: page.name
)
def test_one_command_runs_some_of_the_tests_in_seconds(page: Path) -> None:
    start = ".nox/tests/bin/python -m pytest "
    (command,) = [one for one in commands(page) if one.startswith(start)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words(command.removeprefix(start)))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS


def test_every_file_that_who_takes_over_is_sent_to_is_there() -> None:
    named = set(
        re.findall(r"`((?:\.ci|\.github|docs|harness|test_cases|tests)/[\w./-]*)`", TAKING_OVER.read_text())
    )
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("given", words_for_the_tests(), ids=" ".join)
def test_the_tests_that_are_named_as_an_example_are_there(given: tuple[str, ...]) -> None:
    done = run(sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "::test_" in done.stdout


def installed() -> bool:
    """Whether pytest finds the plugin by itself."""
    from importlib.metadata import entry_points

    return any(entry.value == "harness.plugin" for entry in entry_points(group="pytest11"))


def test_every_command_of_the_readme_that_is_not_run_says_why() -> None:
    unknown = [command for command in commands(README) if reason(command) is None]
    ran = {"harness cases lint test_cases"}
    assert [command for command in unknown if command not in ran] == []
    assert main(["cases", "lint", str(ROOT / "test_cases")]) == 0


def test_pip_is_asked_for_what_there_is() -> None:
    groups = re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for page in PAGES:
        for command in commands(page):
            given = words(command)
            if given[:1] == ["pip"]:
                assert given[1] == "install"
                assert "--group" not in given or given[given.index("--group") + 1] in groups


def test_the_files_shown_for_a_script_are_those_that_ship() -> None:
    text = (DOCS / "command-trainer.md").read_text()
    for name in ("train.py", "model_config.yaml"):
        assert (DOCS / "examples/plain/tiny_lm" / name).read_text() in text


# -- the tutorial ----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def alike(text: str) -> list[str]:
    """Lines without what a clock or a processor decides."""
    return [re.sub(r"\d+\.\d+(e[+-]?\d+)?", "N", line).rstrip() for line in text.splitlines() if line.strip()]


def test_the_tutorial_runs_from_the_red_cell_to_the_closed_issue_and_prints_what_it_says(
    tmp_path: Path,
) -> None:
    for name in ("docs/examples", "tests/webserver.py"):
        target = tmp_path / "checkout" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("python", ""), ("harness", "-m harness ")):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module}"$@"\n')
        (programs / name).chmod(0o755)
    port, script, wanted = str(free_port()), [], []
    for block in blocks(TUTORIAL, "sh"):
        for line in block.splitlines():
            if line.startswith("pip "):
                continue
            status = re.search(r"# exit status (\d+)", line)
            expected = status[1] if status else "0"
            script += [line.replace("8765", port), f"status=$?; [ $status = {expected} ] || "
                       f"{{ echo ended with $status: {shlex.quote(line)}; exit 9; }}"]  # fmt: skip
    wanted = [line for block in blocks(TUTORIAL, "text") for line in alike(block)]
    process = subprocess.Popen(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path / "checkout",
        env=environment()
        | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        | {"HARNESS_LEASES": str(tmp_path / "leases")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=900)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said
    printed = alike(said)
    missing = [line for line in wanted if line not in printed]
    assert missing == [], said


# -- links and the site ----------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading_in_the_repository(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", without_blocks(page))
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        found = (page.parent / unquote(path)).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            dead.append(target)
    assert dead == []


def without_blocks(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them; those of the site are held by ``mkdocs build --strict``."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+?) *$", without_blocks(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(next(one for i in count() if (one := f"{name}-{i}" if i else name) not in found))
    return found


@pytest.mark.parametrize("target", ["no-such-page.md", "index.md#no-such-heading", "#no-such-heading"])
def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, target: str) -> None:
    (tmp_path / "index.md").write_text("# A heading\n\n[here](#a-heading)\n")
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n[there](index.md#a-heading)\n")
    test_every_relative_link_leads_to_a_file_and_a_heading_in_the_repository(page)
    page.write_text(f"# Page\n\n[nowhere]({target})\n")
    with pytest.raises(AssertionError, match=target):
        test_every_relative_link_leads_to_a_file_and_a_heading_in_the_repository(page)


def test_the_reference_is_what_the_code_says() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "reference").iterdir()}
    # In a process of its own: here other tests may have registered a trainer.
    code = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['pages']()))"
    done = run(sys.executable, "-c", code, str(DOCS / "generate_reference.py"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert there == found, "run `python docs/generate_reference.py` and commit what it writes"


def reference() -> Any:
    """docs/generate_reference.py."""
    spec = importlib.util.spec_from_file_location("generate_reference", DOCS / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_command_key_component_and_status() -> None:
    from harness.cases.keys import CaseFile, Harness
    from harness.diagnosis import COMPONENTS

    pages = reference().pages()
    for command in ("run", "cases lint", "goldens approve", "checkpoint diff", "report", "status", "alarm"):
        assert f"## harness {command}\n" in pages["command-line.md"]
    assert "--golden-update" in pages["command-line.md"]
    for key in (*CaseFile.__struct_encode_fields__, *Harness.__struct_encode_fields__):
        assert f"| `{key}` | " in pages["case-file.md"]
        assert f"| `{key}` |  |" not in pages["case-file.md"]
    for component in COMPONENTS:
        assert f"| `{component}` | " in pages["words.md"]
    assert "| 130 | interrupted" in pages["words.md"]
    for key in ("first_bad_step", "reproduce", "evidence", "rel"):
        assert f"| `{key}` | " in pages["verdict.md"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as ``nox -s docs`` builds it."""
    folder = tmp_path_factory.mktemp("site")
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed here; the group tests has it")
    done = run(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_has_every_page_and_no_code_of_its_own(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix("")
        assert (site / ("" if name.name == "index" else name) / "index.html").is_file()
    assert (site / "reference/command-line/index.html").is_file()
    assert not list(site.glob("generate_*.py"))
    assert {path.name for path in (site / "schemas").iterdir()} == {"model_config.json", "verdict.json"}


def test_no_page_of_the_site_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = re.compile(
        r'<(?:script|img|iframe|link(?![^>]*rel="?canonical))[^>]*(?:src|href)="?(?:https?:)?//'
    )
    assert loaded.search('<link href="https://fonts.example.com/x.css" rel="stylesheet">')
    assert [page for page in site.rglob("*.html") if loaded.search(page.read_text())] == []


def test_a_dead_link_fails_the_site(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed here; the group tests has it")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs/index.md").open("a") as page:
        page.write("\n[nowhere](no-such-page.md)\n")
    done = run(sys.executable, "-m", "mkdocs", "build", "--strict", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    assert "no-such-page.md" in done.stderr
