"""What every test relies on."""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from harness.repository import repository

# Read once a process, where it is: this repository, and not the one that a test makes and goes to first.
repository()

# A shell that is no terminal starts what stands before an "&" with Ctrl-C ignored, and programs inherit it;
# tests that interrupt a program would then wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_ROOT = Path(__file__).parents[1]
#: How the reason of a skip begins that CI takes; everything else can be installed there.
MISSING_HARDWARE = "missing hardware: "
#: What reads a checkout of Megatron-LM, and is not collected without one.
OF_A_CHECKOUT = ("test_megatron_words.py", "test_places.py")
#: What is collected only where it is named, as ``nox -s slurm`` does: it needs root and Debian's Slurm.
_WHEN_NAMED = _ROOT / "tests" / "slurm"


def pytest_report_header() -> str:
    """What is left out."""
    if os.environ.get("MEGATRON_LM_PATH"):
        return ""
    return f"{', '.join(OF_A_CHECKOUT)}: left out: MEGATRON_LM_PATH names no checkout of Megatron-LM"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped."""
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that is skipped."""
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


def _fail_if_skipped_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not (os.environ.get("CI") and report.skipped) or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(MISSING_HARDWARE):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where only hardware may be missing: {reason}"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where torch is not asked for it may not be there: then its modules cannot even be collected."""
    if collection_path.name in OF_A_CHECKOUT and not os.environ.get("MEGATRON_LM_PATH"):
        return True
    if collection_path == _WHEN_NAMED:  # of what is named, and of the folders above it, pytest does not ask
        return True
    unasked = config.option.markexpr.startswith("not torch")
    return True if unasked and _imports_torch(collection_path) else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what imports torch."""
    names = item.function.__code__.co_names if isinstance(item, pytest.Function) else ()
    if _imports_torch(item.path) or any(name.partition(".")[0] == "torch" for name in names):
        item.add_marker(pytest.mark.torch)


@functools.cache
def _imports_torch(path: Path) -> bool:
    """Whether importing a module imports torch, by what it and our modules say at their left margin."""
    if path.suffix != ".py" or not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    names = set(re.findall(r"^(?:from|import) ([\w.]+)", text, re.MULTILINE))
    for package, listed in re.findall(r"^from ([\w.]+) import (\([^)]*\)|.*)$", text, re.MULTILINE):
        names |= {f"{package}.{name}" for name in re.findall(r"\w+", listed)}
    if any(name.partition(".")[0] == "torch" for name in names):
        return True
    ours = (name.replace(".", "/") + ".py" for name in names if re.match(r"(tests|harness)\.", name))
    return any(_imports_torch(_ROOT / module) for module in ours)
