"""Broken inputs, through the real command line: one line, exit status 2, nothing written.

But for a cell's own verdict: that it was refused.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.commands.cli import main
from harness.verdict.reading import read_verdict
from tests.checkouts import CASE, golden

GOOD = CASE.format(test_type="ckpt-resume", more="", n=20, half=10)
BOMB = "BASE_0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"BASE_{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
Make = Callable[[Path], None]


def snapshot(folder: Path) -> list[tuple[str, int, int]]:
    """Everything below a folder, with sizes and times."""
    found = []
    for here, folders, files in os.walk(folder):
        for name in sorted((*folders, *files)):
            path = os.path.join(here, name)
            about = os.lstat(path)
            found.append((path, about.st_size if name in files else 0, about.st_mtime_ns))
    return sorted(found)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for path in tmp_path.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def refused(
    place: Path, capfd: pytest.CaptureFixture[str], *words: str, names: str = "", cell: str = ""
) -> str:
    """The one line that the command line answers with, which is the verdict of ``cell`` if one is named."""
    before = snapshot(place)
    assert main(list(words)) == 2, words
    out, error = capfd.readouterr()
    assert error.startswith("harness: "), error
    assert error.count("\n") == 1, error
    assert len(error) < 1000 + sum(map(len, words)), error
    assert names in error
    if cell:
        verdict = read_verdict(place / "results" / cell / "verdict.json")
        assert (verdict.cell, verdict.status, verdict.run is None) == (cell, "refused", False)
        assert verdict.message in error
        shutil.rmtree(place / "results")
    assert snapshot(place) == before
    assert "Traceback" not in out + error
    return error


def text(content: str | bytes) -> Make:
    def make(path: Path) -> None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def nowhere(path: Path) -> None:
    path.symlink_to("no/such/file")


def big(path: Path) -> None:
    """100 MB of JSON, without the disk for it."""
    with path.open("wb") as file:
        file.write(b'{"lm loss": "')
        file.truncate(100 << 20)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


CASES: dict[str, Make] = {
    "empty": text(""),
    "not YAML": text("MODEL_ARGS: ["),
    "misspelt": text("MODEL_ARG: {}\n"),
    "not UTF-8": text(b"MODEL_ARGS: {--a: \xff}\n"),
    "null bytes": text("MODEL_ARGS:\0 {}\n"),
    "alias bomb": text(BOMB + "MODEL_ARGS: {}\n"),
    "python object": text("MODEL_ARGS: !!python/object/apply:os.system ['touch executed']\n"),
    "deep nest": text("MODEL_ARGS: " + "[" * 20_000),
    "100 MB": big,
    "loop of links": loop,
    "link to nowhere": nowhere,
    "folder": folder,
    "pipe": pipe,
}


@pytest.mark.parametrize("kind", CASES)
def test_broken_case_is_refused_by_run(kind: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case = place / "test_cases" / "gpt" / "a_case"
    case.mkdir(parents=True)
    CASES[kind](case / "model_config.yaml")
    refused(place, capfd, "run", str(case), "--hardware", "cpu", names="a_case", cell="cpu/dev/a_case")


@pytest.mark.parametrize("kind", CASES)
def test_broken_case_is_a_finding_of_lint_and_ends_nothing(
    kind: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a_case", "good"):
        (place / "test_cases" / "gpt" / name).mkdir(parents=True)
    (place / "test_cases" / "gpt" / "good" / "model_config.yaml").write_text(GOOD)
    CASES[kind](place / "test_cases" / "gpt" / "a_case" / "model_config.yaml")
    before = snapshot(place)
    assert main(["cases", "lint", "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert found["cases"] == {"run": 1, "unreadable": 1}
    assert [finding["case"] for finding in found["findings"]] == ["gpt/a_case"]
    assert snapshot(place) == before


@pytest.mark.parametrize(
    "name",
    ["..", "../../etc/passwd", "/etc", "a/../../b", "$(touch executed)", "a;touch executed", "a\nb", "-x", "",
     "x" * 5000, "x" * 300, "a b", "~root", "%s", "\u202e"],
)  # fmt: skip
def test_trick_in_a_cases_name_is_refused(name: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "test_cases").mkdir()
    refused(place, capfd, "run", "--hardware", "cpu", "--", name)
    refused(place, capfd, "goldens", "show", "--", f"cpu/dev/{name}")
    assert not (place / "executed").exists()


GOLDENS: dict[str, Make] = {
    "empty": text(""),
    "not JSON": text("{"),
    "not UTF-8": text(b'{"a": "\xff"}'),
    "a list": text("[]"),
    "lists": text('{"0": {"generated_tokens": [1]}}'),
    "deep nest": text("[" * 100_000),
    "nan": text('{"a": {"start_step": 1, "end_step": 1, "step_interval": 1, "values": {"1": "nan"}}}'),
    "NaN": text('{"a": {"start_step": 1, "end_step": 1, "step_interval": 1, "values": {"1": NaN}}}'),
    "huge number": text(
        '{"a": {"start_step": 1, "end_step": 1, "step_interval": 1, "values": {"1": 1' + "0" * 4000 + "}}}"
    ),
    "too many digits": text(
        '{"a": {"start_step": 1, "end_step": 1, "step_interval": 1, "values": {"1": 1' + "0" * 5000 + "}}}"
    ),
    "list of values": text('{"a": {"start_step": 0, "end_step": 1, "step_interval": 1, "values": [1, 2]}}'),
    "no steps": text('{"a": {"start_step": 1, "end_step": 1, "step_interval": 1, "values": {"one": 1}}}'),
    "100 MB": big,
    "loop of links": loop,
    "folder": folder,
    "pipe": pipe,
}


@pytest.mark.parametrize("kind", GOLDENS)
def test_broken_golden_is_refused_wherever_it_is_read(
    kind: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case = place / "test_cases" / "gpt" / "a_case"
    case.mkdir(parents=True)
    (case / "model_config.yaml").write_text(GOOD)
    store = place / "goldens" / "a_case"
    store.mkdir(parents=True)
    good = place / "good.json"
    good.write_text(json.dumps(golden(1)))
    path = store / "golden_values_dev_dgx_h100.json"
    GOLDENS[kind](path)
    refused(place, capfd, "goldens", "show", "h100/dev/a_case", names=path.name)
    if kind != "folder":  # which would be results
        refused(place, capfd, "goldens", "show", str(path), names=path.name)
        refused(place, capfd, "goldens", "diff", str(good), str(path), names=path.name)
    assert main(["goldens", "list"]) == 2
    assert main(["goldens", "lint", "--json"]) == 1
    out, error = capfd.readouterr()
    assert "Traceback" not in out + error


@pytest.mark.parametrize("what", ["nowhere", "x" * 5000, "loop"])
@pytest.mark.parametrize(
    "words",
    [("cases", "lint"), ("cases", "list"), ("goldens", "lint"), ("goldens", "import"), ("goldens", "approve"),
     ("goldens", "show"), ("checkpoint", "show"), ("checkpoint", "verify")],
)  # fmt: skip
def test_path_that_is_not_there_is_refused(
    words: tuple[str, str], what: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (place / "loop").symlink_to("loop")
    refused(place, capfd, *words, what, names=what)


CHECKPOINTS: dict[str, Make] = {
    "empty": text(""),
    "text": text("no checkpoint"),
    "half a zip": text(b"PK\x03\x04" + b"\0" * 50),
    "evil pickle": text(b"cposix\nsystem\n(S'touch executed'\ntR."),
    "folder without a file": folder,
    "loop of links": loop,
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_broken_checkpoint_is_refused(kind: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = place / "model.pt"
    CHECKPOINTS[kind](path)
    for words in (("show",), ("verify",), ("diff", str(path))):
        refused(place, capfd, "checkpoint", *words, str(path), names="model.pt")
    assert not (place / "executed").exists()


def test_file_that_may_not_be_read_is_refused(place: Path) -> None:
    case = place / "test_cases" / "gpt" / "a_case"
    case.mkdir(parents=True)
    for name in ("model_config.yaml", "golden_values_dev.json"):
        (case / name).write_text("{}")
        (case / name).chmod(0)
    # Root may read everything, unless these two rights are taken from it.
    meek = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    before = snapshot(place)
    for words in (["run", str(case)], ["goldens", "show", str(case / "golden_values_dev.json")]):
        command = [*meek, sys.executable, "-m", "harness", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("harness: ")
        assert done.stderr.count("\n") == 1
        assert "Permission denied" in done.stderr
    shutil.rmtree(place / "results")  # that it was refused
    assert snapshot(place) == before


def test_store_that_cannot_be_written_stays_as_it_was(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tree = place / "tree" / "gpt" / "a_case"
    tree.mkdir(parents=True)
    (tree / "golden_values_dev.json").write_text(json.dumps(golden(1)))
    (place / "goldens").write_text("a file")
    refused(place, capfd, "goldens", "import", "tree", names="goldens")


def test_text_in_a_file_cannot_steer_the_terminal(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = place / "goldens" / "a_case"
    store.mkdir(parents=True)
    odd = {
        "\x1b[2J[red]boo[/red]\n": {"start_step": 1, "end_step": 1, "step_interval": 1, "values": {"1": 1.0}}
    }
    (store / "golden_values_dev.json").write_text(json.dumps(odd))
    assert main(["goldens", "show", "cpu/dev/a_case"]) == 0
    assert main(["goldens", "lint"]) == 0
    out = capfd.readouterr().out
    assert "\x1b" not in out
    assert "[red]boo[/red]" in out


def test_real_process_answers_with_one_line_and_status_2(place: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "harness", "run", "../x", "--hardware", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("harness: ")
    assert done.stderr.count("\n") == 1


def test_reader_that_has_seen_enough_ends_it_quietly(place: Path) -> None:
    for index in range(3000):
        case = place / "test_cases" / "gpt" / f"case_{index}"
        case.mkdir(parents=True)
        (case / "model_config.yaml").write_text("[")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "harness", "cases", "lint"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.readline()
        started.stdout.close()
        assert started.stderr.read() == b""


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from harness.commands.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'yaml', 'rich', 'tensorboard', 'msgspec', 'google_crc32c', 'urllib3'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'{heavy}' if heavy else 0)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
