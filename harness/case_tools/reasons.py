"""Why a case is not run, whichever trainer it asks for, and what it needs when it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.cases import Case


def reason_not_run(case: Case, hardware: str = "h100") -> str | None:
    """A sentence; None when the harness runs the case on that hardware."""
    if case.trainer(hardware) != "megatron":
        return None
    from harness.trainers.megatron.adapter import reason_not_run as megatron

    return megatron(case)


def needs(case: Case) -> str:
    """What a run of the case has to be given; empty for nothing."""
    scripts = [
        name
        for name, text in (("BEFORE_SCRIPT", case.before_script), ("AFTER_SCRIPT", case.after_script))
        if text
    ]
    return f"--allow-scripts, for its {' and '.join(scripts)}" if scripts else ""
