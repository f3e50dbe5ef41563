"""docs/resume-bit-for-bit.md: without one of its parts, the script gets the verdict that the page says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.commands.cli import main
from harness.diagnosis import COMPONENTS
from harness.diagnosis.recipes import ANCHORS, PAGE, STOP_AT_K
from harness.matrix import Cell
from harness.protocol.plan import Options
from harness.protocol.run import run_cell
from harness.verdict import Verdict
from harness.verdict.reading import read_verdict
from tests.warm import WARM, started_warm, warm_python

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / PAGE).read_text()
EXAMPLE = ROOT / "docs/examples/plain/resume_recipes"
SCRIPT, CASE = (EXAMPLE / "train.py").read_text(), (EXAMPLE / "model_config.yaml").read_text()
Files = tuple[str, str]  # the script and its case
WHOLE: Files = (SCRIPT, CASE)


def parts() -> dict[str, str]:
    """The page's headings, as addresses have them, and what stands below each."""
    found = re.split(r"^## (.+)\n", TEXT, flags=re.MULTILINE)[1:]
    return {
        re.sub(r"\W+", "-", name.lower()): text for name, text in zip(found[::2], found[1::2], strict=True)
    }


def table() -> dict[str, tuple[str, str]]:
    """What the page says of each part: saved and not restored, and not saved either."""
    rows = re.findall(r"^\| \[.+?\]\(#(.+?)\) \| (.*?) ?\| (.+?) \|$", TEXT, re.MULTILINE)
    return {anchor: (first, second) for anchor, first, second in rows}


def hunks(part: str) -> list[tuple[str, str]]:
    """Its diffs: the lines with it, and those without."""
    found = []
    for block in re.findall(r"^```diff\n(.*?)^```", parts()[part], re.MULTILINE | re.DOTALL):
        for hunk in block.split("@@\n"):
            lines = hunk.splitlines()
            with_it = "\n".join(line[1:] for line in lines if line[0] in " +")
            found.append((with_it, "\n".join(line[1:] for line in lines if line[0] in " -")))
    return found


def replaced(text: str, old: str, new: str) -> str | None:
    """With whole lines replaced, however far they are indented; None where they are not there."""
    for indent in range(0, 24, 2):
        lines = textwrap.indent(old, " " * indent) + "\n"
        if re.search(f"^{re.escape(lines)}", text, re.MULTILINE):
            put = textwrap.indent(new, " " * indent) + "\n" if new else ""
            return re.sub(f"^{re.escape(lines)}", lambda _: put, text, flags=re.MULTILINE)  # noqa: B023
    return None


def without(files: Files, part: str, *, saved: bool = False) -> Files:
    """The script and its case without a part; ``saved``: what is saved of it stays."""
    script, case = files
    for old, new in hunks(part):
        if saved:
            if "saved[" not in old:
                continue
            new = "\n".join(line for line in old.splitlines() if "saved[" not in line)  # noqa: PLW2901
        in_script, in_case = replaced(script, old, new), replaced(case, old, new)
        assert (in_script is None) != (in_case is None), f"{part}: not in one of the files:\n{old}"
        script, case = in_script or script, in_case or case
    return script, case


def changed(files: Files, old: str, new: str) -> Files:
    """With one place of the script changed."""
    assert files[0].count(old) == 1, old
    return files[0].replace(old, new), files[1]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a process listens that has imported torch."""
    with warm_python(tmp_path_factory.mktemp("warm")) as door:
        yield door


@pytest.fixture(autouse=True)
def _cores_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))


def placed(tmp_path: Path, files: Files, warm: Path) -> None:
    """Put a case into ``cases``, which is run where Python is warm."""
    folder = tmp_path / "cases" / "mine" / "recipes"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(files[0])
    (folder / "model_config.yaml").write_text(started_warm(files[1], warm))


def judged(tmp_path: Path, files: Files, warm: Path) -> Verdict:
    """The verdict of the harness, without a golden."""
    placed(tmp_path, files, warm)
    return run_cell(
        Cell("cpu", "dev", "recipes"),
        cases=tmp_path / "cases",
        goldens=tmp_path / "goldens",
        results=tmp_path / "results",
        options=Options(protocol="full"),
    )


def said(verdict: Verdict) -> str:
    """The verdict in the words of the page's table; that there is no golden is no matter."""
    if verdict.status == "failed" and [check.name for check in verdict.failures] == ["golden: is there"]:
        return "green"
    found = verdict.diagnosis
    assert found is not None
    may_be = " or ".join(f"`{one.component}`" for one in found.candidates)
    return f"`{found.component}`" + (f": {may_be}" if may_be else "")


# -- the page --------------------------------------------------------------------------------------


def test_every_part_of_the_page_is_in_its_table_and_every_diff_is_of_the_example() -> None:
    assert list(table()) == list(parts())
    for part in parts():
        assert hunks(part)
        assert without(WHOLE, part) != WHOLE


def test_every_component_that_has_a_recipe_has_a_heading_and_every_heading_is_of_one() -> None:
    assert set(ANCHORS) <= set(COMPONENTS)
    assert set(ANCHORS.values()) <= set(parts())
    assert set(COMPONENTS) - set(ANCHORS) == {"performance", "memory", "crash"}
    assert {f"{PAGE}#{part}" for part in set(parts()) - set(ANCHORS.values())} == {STOP_AT_K}


# -- the script ------------------------------------------------------------------------------------


def test_the_whole_script_is_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "cases" / "mine" / "recipes")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "cases/mine/recipes", "--golden-update"]) == 1
    assert main(["run", "cases/mine/recipes"]) == 0


def test_it_is_green_where_python_is_warm_and_with_workers(tmp_path: Path, warm: Path) -> None:
    files = changed(WHOLE, "num_workers=args.workers", "num_workers=2")
    assert said(judged(tmp_path, files, warm)) == "green"
    persistent = changed(WHOLE, "num_workers=args.workers", "num_workers=2, persistent_workers=True")
    assert said(judged(tmp_path / "persistent", persistent, warm)) != "green"


@pytest.mark.parametrize("part", table())
def test_what_the_page_says_of_a_part_is_the_verdict_without_it(
    part: str, tmp_path: Path, warm: Path
) -> None:
    not_restored, not_saved = table()[part]
    verdict = judged(tmp_path / "not-saved", without(WHOLE, part), warm)
    assert said(verdict) == not_saved, verdict.diagnosis
    assert bool(not_restored) == any("saved[" in old for old, _ in hunks(part))
    if not_restored:
        verdict = judged(tmp_path / "not-restored", without(WHOLE, part, saved=True), warm)
        assert said(verdict) == not_restored, verdict.diagnosis
    if said(verdict) != "green":
        assert verdict.diagnosis is not None
        assert f"{PAGE}#{part}" in verdict.diagnosis.recipes


@pytest.mark.parametrize("stream", ["random.setstate(", "np.random.set_state(", "torch.set_rng_state("])
def test_each_stream_that_is_not_restored_is_named(stream: str, tmp_path: Path, warm: Path) -> None:
    (line,) = (line for line in SCRIPT.splitlines(keepends=True) if stream in line)
    assert said(judged(tmp_path, changed(WHOLE, line, ""), warm)) == "`rng`"


def test_a_scheduler_that_is_made_after_the_optimizer_was_loaded_resets_its_rate(
    tmp_path: Path, warm: Path
) -> None:
    made = "scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.iters)\n"
    load = '        optimizer.load_state_dict(saved["optimizer"])\n'
    linear = "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / args.iters)\n"
    files = changed(WHOLE, made, linear)
    assert said(judged(tmp_path / "before", files, warm)) == "green"
    late = changed(changed(files, f"    {linear}", ""), load, f"{load}        {linear}")
    late = changed(
        late,
        "    saved = None\n    step",
        f"    if not args.load:\n        {linear}    saved = None\n    step",
    )
    assert said(judged(tmp_path / "after", late, warm)) == "`lr-schedule`"


def test_streams_that_are_restored_before_batches_are_skipped_have_moved_on(
    tmp_path: Path, warm: Path
) -> None:
    block = SCRIPT[SCRIPT.index("        if saved:\n") : SCRIPT.index("            saved = None\n")]
    early = changed(WHOLE, block, "        if saved:\n")
    early = changed(
        early, "    log = args", f"{textwrap.indent(textwrap.dedent(block), '    ')}\n    log = args"
    )
    assert said(judged(tmp_path, early, warm)) == "`rng`"


def test_a_loader_without_a_generator_draws_from_torchs_own_stream() -> None:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    for generator, draws in ((None, True), (torch.Generator(), False)):
        before = torch.get_rng_state()
        iter(DataLoader(TensorDataset(torch.arange(8)), shuffle=True, generator=generator))
        assert torch.equal(before, torch.get_rng_state()) is not draws


def test_a_script_that_logs_little_is_told_less(tmp_path: Path, warm: Path) -> None:
    files = without(without(WHOLE, "what-to-log"), "the-place-in-the-data")
    assert "says `unknown`: `data-order` or `rng`." in TEXT
    verdict = judged(tmp_path, files, warm)
    assert said(verdict) == "`unknown`: `data-order` or `rng`"
    assert verdict.diagnosis is not None
    anchors = [one.partition("#")[2] for one in verdict.diagnosis.recipes]
    assert anchors == ["the-place-in-the-data", "random-streams", "what-to-log"]


def test_one_that_loads_nothing_is_said_to(tmp_path: Path, warm: Path) -> None:
    assert said(judged(tmp_path, changed(WHOLE, "if args.load:", "if False:"), warm)) == "`checkpoint`"


def test_one_file_of_a_script_that_does_not_stop_is_an_error_and_a_torn_one_a_checkpoint_lost(
    tmp_path: Path, warm: Path
) -> None:
    never = (SCRIPT, CASE.replace('--stop, "${EXIT_ITERS}"', '--stop, "${TRAIN_ITERS}"'))
    verdict = judged(tmp_path, never, warm)
    assert (verdict.status, said(verdict)) == ("error", "`crash`")
    assert verdict.diagnosis is not None
    assert any("let it stop after ${EXIT_ITERS} iterations" in line for line in verdict.diagnosis.evidence)
    whole, part = 'args.save / "ckpt.pt"', 'args.save / "ckpt.pt.part"'
    cut = f"({whole}).write_bytes(({part}).read_bytes()[:3000])"
    torn = changed(WHOLE, f"os.replace({part}, {whole})", cut)
    verdict = judged(tmp_path / "torn", torn, warm)
    assert (verdict.status, said(verdict)) == ("failed", "`checkpoint`")
    assert "resume: load iteration" in " ".join(check.name for check in verdict.checks if not check.passed)


@pytest.mark.parametrize("replaces", [True, False])
def test_a_save_that_fails_half_way_leaves_the_last_one_only_where_it_is_replaced(
    replaces: bool, tmp_path: Path, warm: Path
) -> None:
    import torch

    (tmp_path / "train.py").write_text((WHOLE if replaces else without(WHOLE, "one-file"))[0])

    def launch(*more: str, **env: str) -> int:
        words = [sys.executable, "-S", str(WARM), str(warm), "train.py", "--iters", "24",
                 "--save-every", "12", "--save", ".", "--log", "log", *more]  # fmt: skip
        done = subprocess.run(words, cwd=tmp_path, env=os.environ | env, check=False, capture_output=True)
        return done.returncode

    assert launch("--stop", "12") == 0
    assert (tmp_path / "ckpt.pt").stat().st_size > 16 << 10
    assert launch("--stop", "24", "--load", ".", FILE_SIZE_LIMIT=str(8 << 10)) == 1
    if replaces:
        assert torch.load(tmp_path / "ckpt.pt", weights_only=False)["step"] == 12
    else:
        with pytest.raises((OSError, RuntimeError)):
            torch.load(tmp_path / "ckpt.pt", weights_only=False)


def test_the_terminal_the_report_and_the_verdict_name_the_heading(
    tmp_path: Path, warm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    placed(tmp_path, without(WHOLE, "the-optimizer", saved=True), warm)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "cases/mine/recipes"]) == 1
    heading = f"{PAGE}#the-optimizer"
    assert f"\nrecipe: {heading} of resume-harness\n" in capsys.readouterr().out
    (verdict,) = (tmp_path / "results").rglob("verdict.json")
    assert json.loads(verdict.read_text())["diagnosis"]["recipes"] == [heading]
    found = read_verdict(verdict).diagnosis
    assert found is not None
    assert found.recipes == (heading,)
    assert f"<code>{heading}</code>" in (verdict.parent / "report.html").read_text()
