"""harness/report/github: what the workflows call, run as they call it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.checks import Check, Worst
from harness.commands.cli import main, parser
from harness.matrix import HARDWARE, TRACKS, Cell
from harness.report.github.annotations import MOST, commands, worst
from harness.report.github.markdown import block, code, column
from harness.report.github.summary import LIMIT
from tests.nights import green, listing, not_run, ran, red, write

ROOT = Path(__file__).parents[1]
CELL = "h100/dev/gpt"
#: The noxfile's sessions: a name per hardware, a parameter per track and case.
NOXFILE = """
import nox
nox.options.tags = ["default"]
from harness.matrix import HARDWARE, TRACKS, cases_by_name
from pathlib import Path

for hardware in HARDWARE:
    @nox.session(name=f"case({hardware})", tags=[hardware])
    @nox.parametrize("track,case", [
        nox.param(track, case, id=f"{track},{case}", tags=[track, case])
        for track in TRACKS for case in sorted(cases_by_name(Path("test_cases")))
    ])
    def case(session, track, case):
        pass

@nox.session
def tests(session):
    pass
"""


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("GITHUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


GPUS = [name for name, kind in HARDWARE.items() if kind.device_names]


def listing_file(path: Path, *cells: str) -> str:
    file = path / "listing.json"
    file.write_text(json.dumps(listing(*cells)))
    return str(file)


# -- the matrix ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with 333 cases, as many as Megatron-LM's repository has."""
    path = tmp_path_factory.mktemp("imported")
    for number in range(333):
        case = (
            path
            / "test_cases"
            / ("gpt" if number % 2 else "moe")
            / f"gpt3_mcore_te_tp1_pp4_{number:03d}-resume"
        )
        case.mkdir(parents=True)
        (case / "model_config.yaml").write_text("TEST_TYPE: ckpt-resume\n")
    (path / "noxfile.py").write_text(NOXFILE)
    return path


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=folder, env={**base, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.tools
def test_the_matrix_of_333_imported_cases_is_made_by_the_real_nox_and_has_a_job_per_pair(
    imported: Path,
) -> None:
    output = imported / "output"
    done = run(imported, "github", "matrix", GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["include"]
    assert len(jobs) == len(HARDWARE) * len(TRACKS) < 256
    assert {(job["hardware"], job["track"]) for job in jobs} == {(h, t) for h in HARDWARE for t in TRACKS}
    assert {job["cells"] for job in jobs} == {333}
    assert output.read_text() == f"matrix={done.stdout}empty=false\n"


@pytest.mark.tools
def test_the_noxfile_of_this_repository_gives_the_same_matrix(imported: Path, tmp_path: Path) -> None:
    shutil.copytree(imported / "test_cases", tmp_path / "test_cases")
    for name in ("noxfile.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "harness").symlink_to(ROOT / "harness")
    done = run(tmp_path, "github", "matrix")
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["include"]
    assert {(job["hardware"], job["track"]) for job in jobs} == {(h, t) for h in HARDWARE for t in TRACKS}
    assert len(jobs) < 256


@pytest.mark.tools
def test_the_sessions_of_a_job_are_all_of_its_pair_and_nox_knows_each(imported: Path) -> None:
    text = subprocess.run(
        [sys.executable, "-m", "nox", "-l", "--json", "-t", *TRACKS],
        cwd=imported, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (imported / "listing.json").write_text(text)
    done = run(imported, "github", "sessions", "listing.json", "--hardware", "h100", "--track", "dev")
    assert done.returncode == 0, done.stderr
    sessions = done.stdout.splitlines()
    assert len(sessions) == 333
    known = {item["session"] for item in json.loads(text)}
    assert set(sessions) <= known
    assert all(session.startswith("case(h100)(dev,") for session in sessions)


def test_a_matrix_without_a_job_says_so_and_is_still_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    assert main(["github", "matrix", listing_file(tmp_path, "cpu/dev/gpt"), "--hardware", "gpu"]) == 0
    assert json.loads(capsys.readouterr().out) == {"include": []}
    assert (tmp_path / "output").read_text() == 'matrix={"include":[]}\nempty=true\n'


def test_the_matrix_can_be_narrowed_and_a_name_that_does_not_exist_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = listing_file(tmp_path, *(f"{h}/{t}/gpt" for h in HARDWARE for t in TRACKS))

    def pairs(*arguments: str) -> list[tuple[str, str]]:
        assert main(["github", "matrix", file, *arguments]) == 0
        return [(job["hardware"], job["track"]) for job in json.loads(capsys.readouterr().out)["include"]]

    assert pairs("--hardware", "gpu", "--track", "dev") == [(h, "dev") for h in GPUS]
    assert pairs("--hardware", "h100", "--hardware", "cpu", "--track", "lts") == [
        ("h100", "lts"),
        ("cpu", "lts"),
    ]
    assert pairs("--hardware", "gpu", "--hardware", "cpu") == pairs("--hardware", "all") == pairs()
    assert main(["github", "matrix", file, "--hardware", "no-such"]) == 2
    assert main(["github", "matrix", file, "--track", "gpu"]) == 2
    assert main(["github", "sessions", file, "--hardware", "h100", "--track", "no-such"]) == 2


def test_a_job_says_what_it_runs_on_where_labels_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = listing_file(tmp_path, "h100/dev/gpt", "cpu/dev/gpt")

    def runners(labels: str) -> list[list[str]]:
        assert main(["github", "matrix", file, "--runner-labels", labels]) == 0
        return [job["runs-on"] for job in json.loads(capsys.readouterr().out)["include"]]

    assert runners('["self-hosted", "{hardware}-{track}"]') == [["self-hosted", "h100-dev"], ["ubuntu-24.04"]]
    assert runners('["big"]') == [["big"], ["ubuntu-24.04"]]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("gpu", "is not JSON"),
        ('"gpu"', "expected a JSON list"),
        ("[]", "expected a label at least"),
        ('["gpu", 3]', "expected a JSON list"),
        ('["gpu", " "]', "expected a JSON list"),
        ('["{hardwar}"]', "expected no braces but {hardware} and {track}"),
    ],
)
def test_labels_that_no_runner_can_have_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: str, said: str
) -> None:
    file = listing_file(tmp_path, "h100/dev/gpt")
    assert main(["github", "matrix", file, "--runner-labels", labels]) == 2
    complaint = capsys.readouterr().err
    assert "--runner-labels" in complaint
    assert said in complaint


def test_gpu_is_a_name_where_hardware_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness.repository import Hardware, Repository

    mine = {"gpu": Hardware("gpu", ("L4",)), "l40s": Hardware("l40s", ("L40S",)), "cpu": Hardware("cpu")}
    monkeypatch.setattr("harness.matrix.repository", lambda: Repository(tmp_path, hardware=mine))
    file = listing_file(tmp_path, *(f"{name}/dev/gpt" for name in mine))
    assert main(["github", "matrix", file, "--hardware", "gpu"]) == 0
    assert [job["hardware"] for job in json.loads(capsys.readouterr().out)["include"]] == ["gpu"]


def test_a_folder_without_a_case_is_no_matrix_without_a_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_cases").mkdir()
    assert main(["github", "matrix", "test_cases"]) == 2
    assert "test_cases: lists no cell" in capsys.readouterr().err


def test_a_job_without_a_session_is_an_error(tmp_path: Path) -> None:
    file = listing_file(tmp_path, "cpu/dev/gpt")
    assert main(["github", "sessions", file, "--hardware", "h100", "--track", "dev"]) == 3


@pytest.mark.parametrize("text", ["", "{}", "[3]", '[{"name": "case(cpu)"}]', "nox > no"])
def test_what_nox_did_not_print_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "listing.json").write_text(text)
    assert main(["github", "matrix", str(tmp_path / "listing.json")]) == 2


@pytest.mark.parametrize("case", ["../../x", "a b", "$(x)", ""])
def test_a_session_of_a_case_that_cannot_be_one_is_refused(tmp_path: Path, case: str) -> None:
    file = tmp_path / "listing.json"
    file.write_text(
        json.dumps([{"session": "s", "name": "case(cpu)", "call_spec": {"track": "dev", "case": case}}])
    )
    assert main(["github", "matrix", str(file)]) == 2


def test_without_nox_it_says_how_to_go_on(tmp_path: Path) -> None:
    done = run(tmp_path, "github", "matrix")  # no noxfile there
    assert done.returncode == 2
    assert "nox -l --json" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("called", "beside"),
    [
        # In a checkout it is called before anything is installed.
        ((("matrix", "listing.json"),), ()),
        # These read verdicts.
        ((("summary", "results"), ("annotations", "results")), ("msgspec",)),
    ],
)
def test_what_the_workflows_call_needs_the_standard_library_and_for_verdicts_msgspec(
    tmp_path: Path, called: tuple[tuple[str, ...], ...], beside: tuple[str, ...]
) -> None:
    write(tmp_path / "results", red(CELL), green("h100/dev/sound"))
    listing_file(tmp_path, CELL)
    (tmp_path / "installed").mkdir()
    for name in beside:
        there = importlib.util.find_spec(name)
        assert there is not None
        assert there.origin is not None
        (tmp_path / "installed" / name).symlink_to(Path(there.origin).parent)
    program = (
        "import sys\n"
        "from harness.commands.cli import main\n"
        f"for words in {called!r}:\n"
        "    assert main(['github', *words]) == 0\n"
        "foreign = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        f"assert foreign <= {{'harness', '__main__', '__mp_main__', *{beside!r}}}, foreign\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        cwd=tmp_path, env={"PYTHONPATH": f"{ROOT}{os.pathsep}installed"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# -- the summary -----------------------------------------------------------------------------------


def test_the_summary_tells_of_each_red_cell_what_since_lost_and_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results", red(CELL), green("h100/dev/sound"))
    assert main(["github", "summary", "results"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("## ❌ 1 red, 0 red in quarantine, 1 green\n")
    assert (
        "| `h100/dev/gpt` | ❌ failed | `resuming does not continue the same training` | `step 52, 2 steps"
        in said
    )
    assert "lr-schedule: the position of the learning-rate schedule" in said
    assert '```sh\nnox -s "case(h100)(dev,gpt)"\n```' in said
    assert "| `h100/dev/sound` | ✅ passed |" in said


def test_the_summary_is_appended_where_github_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "results", green(CELL))
    target = tmp_path / "summary.md"
    target.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    assert main(["github", "summary", "results"]) == 0
    assert target.read_text().startswith("before\n## ✅ 0 red, 0 red in quarantine, 1 green\n")


def test_the_summary_shows_a_cell_that_left_no_verdict_and_one_in_quarantine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results", red(CELL))
    entry = f"- {{cell: {CELL}, reason: 'a | b', owner: '@ann', expires: 2999-01-01, green_nights: 9}}\n"
    (tmp_path / "quarantine.yaml").write_text(entry)
    file = listing_file(tmp_path, CELL, "h100/dev/lost", "a100/dev/not_asked_for")
    assert main(["github", "summary", "results", "--expect", file, "--hardware", "h100"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("## ❌ 1 red, 1 red in quarantine, 0 green\n")
    assert "| `h100/dev/lost` | ❌ no verdict |" in said
    assert "❌ failed, in quarantine" in said
    assert "until 2999-01-01, owner `@ann`: `a | b`" in said
    assert "not_asked_for" not in said


def test_the_summary_is_of_the_night_that_is_meant_and_shows_what_was_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results", replace(green(CELL), run=ran(timedelta(hours=2))))
    write(tmp_path / "results", not_run("a100/dev/gpt", "skipped", "no GPU"), green("cpu/dev/gpt"))
    begin = ran(timedelta(hours=1)).started
    assert main(["github", "summary", "results", "--since", begin]) == 0
    said = capsys.readouterr().out
    assert said.startswith("## ❌ 1 red, 0 red in quarantine, 1 green, 1 skipped\n")
    assert "| `h100/dev/gpt` | ❌ old | `its verdict is old: it ran at " in said
    assert "| `a100/dev/gpt` | ⚪ skipped | `skipped: no GPU` |" in said
    assert main(["github", "annotations", "results", "--since", begin]) == 0
    assert [line[:24] for line in capsys.readouterr().out.splitlines()] == ["::error title=h100/dev/g"]
    write(tmp_path / "results", replace(green(CELL), run=None))
    assert main(["github", "summary", "results", "--since", begin]) == 0
    assert "everything held; nobody knows when it ran" in capsys.readouterr().out


def test_a_summary_of_nothing_but_skipped_cells_is_not_green(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results", not_run(CELL, "skipped"))
    assert main(["github", "summary", "results"]) == 0
    assert capsys.readouterr().out.startswith("## ⚪ 0 red, 0 red in quarantine, 0 green, 1 skipped\n")
    file = listing_file(tmp_path, "cpu/dev/gpt")
    assert main(["github", "summary", "results", "--expect", file, "--hardware", "h100"]) == 2


def test_the_summary_stays_below_github_s_limit_and_says_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "é" * 20_000
    verdicts = [red(f"h100/dev/case_{n:04d}", evidence=(long,), command=long) for n in range(60)]
    write(tmp_path / "results", *verdicts, *(green(f"a100/dev/case_{n:04d}") for n in range(30)))
    target = tmp_path / "summary.md"
    target.write_bytes(b"x" * 4000)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    assert main(["github", "summary", "results"]) == 0
    text = target.read_text()
    assert target.stat().st_size <= LIMIT
    assert re.search(r"\d+ entries did not fit into GitHub's limit", text)
    # Every red cell is at least in the table.
    assert all(f"| `h100/dev/case_{n:04d}` |" in text for n in range(60))


def test_untrusted_text_of_a_summary_is_not_printed_where_github_would_take_it_for_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results", red(CELL, command="::stop-commands::x"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert main(["github", "summary", "results"]) == 0
    assert "::stop-commands::x" in (tmp_path / "summary.md").read_text()
    assert "::" not in capsys.readouterr().out


def test_a_summary_that_is_full_already_is_not_made_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "results", red(CELL))
    target = tmp_path / "summary.md"
    target.write_bytes(b"x" * (LIMIT - 10))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    assert main(["github", "summary", "results"]) == 0
    assert target.stat().st_size == LIMIT - 10


EVIL = "@everyone | ` `` #1\n\n::error::no <b>x</b> \x1b[2J"


def test_untrusted_text_stays_in_its_cell_of_the_table_and_in_code() -> None:
    from markdown_it import MarkdownIt

    text = f"| a | b |\n|---|---|\n| {column(EVIL)} | x |\n\n{code(EVIL)}\n\n{block(EVIL)}\n"
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert sum(token.type == "td_open" for token in tokens) == 2
    children = [child for token in tokens for child in token.children or []]
    codes = [child.content for child in children if child.type == "code_inline"]
    assert codes == ["@everyone | ` `` #1 ::error::no <b>x</b> \\x1b[2J"] * 2
    assert not any("@" in child.content for child in children if child.type == "text")
    (fence,) = (token for token in tokens if token.type == "fence")
    assert fence.content.startswith("@everyone")


# -- annotations -----------------------------------------------------------------------------------


GOLDEN = {
    "num-zeros": {"start_step": 1, "end_step": 100, "step_interval": 1, "values": {"51": 1, "52": 2}},
    "lm loss": {
        "start_step": 1,
        "end_step": 100,
        "step_interval": 1,
        "values": {"51": 10.1, "52": 10.2, "520": 1},
    },
}


def annotated(capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    assert main(["github", "annotations", "results", *more]) == 0
    return capsys.readouterr().out.splitlines()


def golden(path: Path, name: str = "golden_values_dev_dgx_h100.json") -> list[str]:
    file = path / "goldens" / "gpt" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(GOLDEN, indent=1))
    return file.read_text().splitlines()


@pytest.mark.parametrize("name", ["golden_values_dev_dgx_h100.json", "golden_values_dev.json"])
def test_a_red_cell_is_annotated_on_the_golden_s_line_of_the_first_bad_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write(tmp_path / "results", red(CELL), green("h100/dev/sound"))
    lines = golden(tmp_path, name)
    (said,) = annotated(capsys)
    number = int(re.search(r"line=(\d+)", said)[1])  # type: ignore[index]
    assert said.startswith(f"::error file=goldens/gpt/{name},line={number},title=h100/dev/gpt is red::")
    assert lines[number - 1].strip().startswith('"52": 10.2')


@pytest.mark.parametrize(
    ("metric", "step", "expected"),
    [("lm loss", 99, '"lm loss": {'), ("iteration-time", 52, "{"), ("num-zeros", 52, '"52": 2')],
)
def test_without_that_step_it_is_the_metric_s_line_and_without_the_metric_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str, step: int, expected: str
) -> None:
    write(tmp_path / "results", red(CELL, metric=metric, step=step))
    lines = golden(tmp_path)
    (said,) = annotated(capsys)
    number = int(re.search(r"line=(\d+)", said)[1])  # type: ignore[index]
    assert lines[number - 1].strip() == expected


def test_without_a_golden_it_is_the_case_s_file_and_without_a_case_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results", red(CELL))
    assert annotated(capsys)[0].startswith("::error title=")
    (tmp_path / "test_cases/gpt_family/gpt").mkdir(parents=True)
    (tmp_path / "test_cases/gpt_family/gpt/model_config.yaml").touch()
    assert annotated(capsys)[0].startswith(
        "::error file=test_cases/gpt_family/gpt/model_config.yaml,line=1,title="
    )


def test_a_command_cannot_be_smuggled_into_an_annotation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "100%\n::stop-commands::x\r\n::add-mask::y, z: %0A"
    write(tmp_path / "results", red(CELL, message=evil, command=evil))
    (said,) = annotated(capsys)
    assert "%25%0A" not in said.partition("::")[0]
    message = said.split("::", 2)[2]
    assert "100%25" in message
    assert "%250A" in message
    assert "\r" not in said


def test_a_path_cannot_add_a_property_to_an_annotation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results", red(CELL))
    golden(tmp_path)
    (tmp_path / "goldens").rename(tmp_path / "a,line=1::b%")
    (said,) = annotated(capsys, "--goldens", "a,line=1::b%")
    assert said.startswith("::error file=a%2Cline=1%3A%3Ab%25/gpt/golden_values_dev_dgx_h100.json,line=")


def test_only_the_worst_check_of_a_cell_is_annotated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tuple(
        Check(
            f"resumed: metric {n}", f"metric {n}", "continuous", "exact", passed=False, first_bad_step=60 + n
        )
        for n in range(20)
    )
    write(tmp_path / "results", red(CELL, more=more))
    (said,) = annotated(capsys)
    assert "resumed: lm loss: differs from step 52 on" in said


def failed(
    name: str, *, kind: Any = "exact", against: Any = "continuous", step: int | None = 52, by: float
) -> Check:
    return Check(
        name, name, against, kind, passed=False, first_bad_step=step, worst=Worst(step, 1.0, 1.0 + by)
    )


def test_the_worst_check_is_of_a_curve_then_of_the_resumed_run_then_the_earliest_then_the_largest() -> None:
    own = red(CELL, step=52).checks[0]
    slow = failed("iteration-time", kind="upper-bound", against="golden", step=1, by=9.0)
    golden_too = failed("golden: lm loss", against="golden", step=1, by=9.0)
    state = failed("state", against="state", step=None, by=9.0)
    late = failed("late", step=53, by=9.0)
    others = (slow, golden_too, state, late)
    assert worst(red(CELL, step=52, more=others)) == own
    early = failed("early", step=51, by=0.001)
    assert worst(red(CELL, step=52, more=(*others, early))) == early
    large = failed("large", step=52, by=5.0)
    assert worst(red(CELL, step=52, more=(*others, large))) == large
    assert worst(green(CELL)) is None


def test_github_shows_ten_of_a_kind_and_the_last_one_says_how_many_more(tmp_path: Path) -> None:
    from harness.night.night import read_night

    night = read_night(write(tmp_path / "results", *(red(f"h100/dev/case_{n:02d}") for n in range(25))))
    lines = commands(night.outcomes, {}, tmp_path, {})
    assert len(lines) == MOST
    assert lines[-1] == "::error title=16 more cells::they are in the job summary"
    assert len(commands(night.outcomes[:10], {}, tmp_path, {})) == 10


def test_a_cell_in_quarantine_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "results", red(CELL), red("h100/dev/other"))
    entry = f"- {{cell: {CELL}, reason: flaky, owner: ann, expires: 2999-01-01, green_nights: 9}}\n"
    (tmp_path / "quarantine.yaml").write_text(entry)
    error, warning = annotated(capsys)
    assert error.startswith("::error ")
    assert "h100/dev/other" in error
    assert warning.startswith("::warning ")
    assert "in quarantine until 2999-01-01 (ann): flaky" in warning


def test_an_annotation_of_a_cell_without_a_verdict_has_a_place_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden(tmp_path)
    file = listing_file(tmp_path, CELL, "h100/dev/sound")
    write(tmp_path / "results", green("h100/dev/sound"))
    (said,) = annotated(capsys, "--expect", file)
    assert said.startswith(
        "::error file=goldens/gpt/golden_values_dev_dgx_h100.json,line=1,title=h100/dev/gpt is red::"
    )
    assert "no verdict" in said


def test_every_command_in_the_documentation_is_one() -> None:
    text = (ROOT / "docs" / "github.md").read_text()
    found = re.findall(r"^harness ([^#\n]*)", text, flags=re.MULTILINE)
    assert len(found) >= 3
    for line in found:
        parser().parse_args(line.split())


def test_cells_of_the_matrix_are_cells(tmp_path: Path) -> None:
    from harness.report.github.matrix import read_listing

    (listed,) = read_listing(json.dumps(listing(CELL)), "here")
    assert listed.cell == Cell.parse(CELL)
    assert listed.session == "case(h100)(dev,gpt)"
