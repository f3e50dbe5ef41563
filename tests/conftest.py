"""What every test relies on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

# A shell that is no terminal starts what stands before an "&" with Ctrl-C ignored, and programs inherit it;
# tests that interrupt a program would then wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: How the reason of a skip begins that CI takes; everything else can be installed there.
MISSING_HARDWARE = "missing hardware: "


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test that is skipped."""
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
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
