"""One configuration: its golden recorded, then a verdict in ``auto``; and whether both are as expected."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.protocol.judge import NO_GOLDEN
from tests.megatron.configs import Config

if TYPE_CHECKING:
    from harness.launch.launcher import Launcher
    from harness.verdict import Verdict

STEPS = ("record", "auto")
_RECORDED = "golden: recorded"  # the check that fails when a golden was recorded, so that it is no test


@dataclass(frozen=True)
class Found:
    """What became of one step of a configuration.

    Args:
        name: of the configuration.
        step: ``record`` or ``auto``.
        wrong: what is not as expected, a sentence each; empty when all is.
        status: the verdict's; empty where there is none.
        protocol: which was run.
        compared, uncompared: entries of the saved state.
        seconds: how long it took; ``phases``: by phase.
    """

    name: str
    step: str
    wrong: tuple[str, ...]
    status: str = ""
    protocol: str = ""
    compared: int = 0
    uncompared: int = 0
    seconds: float = 0.0
    phases: tuple[tuple[str, float], ...] = ()

    def line(self) -> str:
        """For a terminal."""
        said = "as expected" if not self.wrong else "NOT as expected"
        state = f", state {self.compared} compared, {self.uncompared} not" if self.compared else ""
        phases = ", ".join(f"{name} {seconds:.0f}" for name, seconds in self.phases)
        times = f" ({phases})" if phases else ""
        status = self.status or "no verdict"
        return f"{self.name}, {self.step}: {said}: {status}{state}, {self.seconds:.0f} s{times}"


def try_all_steps(root: Path, config: Config, core: str, launcher: Launcher) -> list[Found]:
    """Record, then judge; what cannot be recorded is not judged.

    Args:
        root: a scratch folder.
        core: the version of megatron-core.
    """
    found = []
    for step in STEPS:
        found.append(_try(root, config, core, step, launcher))
        if found[-1].wrong or config.red.get(core):
            break
    return found


def _try(root: Path, config: Config, core: str, step: str, launcher: Launcher) -> Found:
    from harness.errors import HarnessError

    began = time.monotonic()
    try:
        verdict = judge(root, config, step, launcher)
    except (HarnessError, OSError) as error:
        return Found(config.name, step, (str(error),), seconds=time.monotonic() - began)
    wrong = unexpected(verdict, step, config.red.get(core, ""))
    entries = verdict.coverage.entries if verdict.coverage is not None else None
    if not wrong:
        shutil.rmtree(root / "results" / step / "cpu" / "dev" / config.name, ignore_errors=True)
    return Found(
        config.name,
        step,
        tuple(wrong),
        verdict.status,
        str(verdict.provenance.get("protocol", "")),
        entries.compared if entries else 0,
        entries.uncompared if entries else 0,
        time.monotonic() - began,
        tuple(
            (name, seconds) for name, seconds in verdict.timing.items() if seconds >= 1 and name != "total"
        ),
    )


def judge(root: Path, config: Config, step: str, launcher: Launcher) -> Verdict:
    """One verdict; raises HarnessError."""
    from harness.cases import load_case
    from harness.matrix import Cell
    from harness.protocol.plan import Options
    from harness.protocol.run import run_cell
    from harness.report.html import write_report_of

    record = step == "record"
    return run_cell(
        Cell("cpu", "dev", config.name),
        case=load_case(config.write(root / "cases")),
        cases=root / "cases",
        goldens=root / "goldens",
        results=root / "results" / step,
        options=Options(golden_update=record, trainer="megatron"),
        launcher=launcher,
        report=write_report_of,
    )


def unexpected(verdict: Verdict, step: str, red: str) -> list[str]:
    """What is not as it should be.

    Args:
        red: what a red verdict must say, where red is what is expected.
    """
    failed = [f"{check.name}: {check.message}" for check in verdict.failures if check.name != _RECORDED]
    told = [verdict.message, str(verdict.provenance.get("error", "")), *failed]
    if verdict.diagnosis is not None:
        told += verdict.diagnosis.evidence
    if red:
        if verdict.passed:
            return [f"it is green, expected red: {red}"]
        return [] if any(red in text for text in told) else [f"it is red, and does not say {red!r}", *told]
    wrong = [text for text in failed if not (step == "record" and text.startswith(NO_GOLDEN))]
    if verdict.status == "error":
        wrong += told[:2]
    if step == "record":
        recorded = [check.message for check in verdict.failures if check.name == _RECORDED]
        wrong += [text for text in recorded if text.startswith("not recorded")]
    elif not verdict.passed and not wrong:
        wrong.append(verdict.message or verdict.status)
    coverage = verdict.coverage
    if coverage is None or not coverage.entries.compared:
        wrong.append("nothing of the saved state was compared")
    else:
        counts = (("files", coverage.files), ("entries", coverage.entries), ("copies", coverage.copies))
        wrong += [f"not compared: {count.uncompared} {what}" for what, count in counts if count.uncompared]
    if not verdict.provenance.get("notes"):
        wrong.append("it does not say that it ran behind the stand-in for a GPU")
    return [text for text in wrong if text]
