"""What is wrong with the cases below a folder."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from harness.case_tools.known import KnownCases
from harness.matrix import HARDWARE

if TYPE_CHECKING:
    from harness.cases import Case


@dataclass(frozen=True)
class CaseFinding:
    """Something wrong: where (relative to the folder of cases), of which kind, in a sentence.

    Args:
        level: ``error``, or ``warning`` for what may be meant so.
    """

    case: str
    kind: str
    message: str
    level: Literal["error", "warning"] = "error"

    def sentence(self) -> str:
        """One line for a person."""
        return f"{self.case}: {'warning: ' if self.level == 'warning' else ''}{self.message}"


@dataclass(frozen=True)
class CaseReport:
    """All cases of a folder.

    Args:
        path: the folder.
        states: how many are ``run``, ``not run``, ``unreadable``.
        reasons: how many are not run, by the reason.
        findings: what is wrong.
    """

    path: str
    states: Counter[str]
    reasons: Counter[str]
    findings: tuple[CaseFinding, ...]

    @property
    def failed(self) -> bool:
        """Whether anything is wrong that cannot be meant so."""
        return any(finding.level == "error" for finding in self.findings)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "path": self.path,
            "cases": dict(sorted(self.states.items())),
            "reasons": dict(sorted(self.reasons.items())),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def summary(self) -> str:
        """How many of what."""
        total = sum(self.states.values())
        wrong = sum(finding.level == "error" for finding in self.findings)
        warned = len(self.findings) - wrong
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        found = f"{wrong} finding{'' if wrong == 1 else 's'}" if wrong else "nothing is wrong"
        found += f", {warned} warning{'' if warned == 1 else 's'}" if warned else ""
        return f"{self.path}: {total} cases ({states}): {found}"


def lint(cases: KnownCases) -> CaseReport:
    """Unreadable cases, names that two of them have, links that are not followed, likely mistakes."""
    root = cases.root
    findings = []
    for case in cases.all:
        where = case.path.relative_to(root).as_posix()
        if case.state == "unreadable":
            findings.append(CaseFinding(where, "unreadable", case.reason))
        first = cases.by_name[case.name][0]
        if case is not first:
            said = f"a case of the same name is at {first.path.relative_to(root).as_posix()}: rename one"
            findings.append(CaseFinding(where, "name", said))
        if case.case is not None:
            findings += [CaseFinding(where, "repeated-key", said, "warning") for said in case.case.warnings]
            findings += _of_a_command(where, case.case)
    for link in cases.links:
        where = link.relative_to(root).as_posix()
        findings.append(CaseFinding(where, "link", "is a symbolic link to a folder, and is not followed"))
    reasons = Counter(case.reason for case in cases.all if case.state == "not run")
    return CaseReport(str(root), Counter(case.state for case in cases.all), reasons, tuple(findings))


def _of_a_command(where: str, case: Case) -> list[CaseFinding]:
    """Likely mistakes in a case that starts anybody's script, on any hardware."""
    from harness.trainers.command.remarks import remarks

    found: dict[str, CaseFinding] = {}
    for hardware in HARDWARE:
        for remark in remarks(case, hardware) if case.trainer(hardware) == "command" else ():
            said = str(remark)
            found[said] = CaseFinding(where, remark.kind, said, "error" if remark.wrong else "warning")
    return list(found.values())
