"""What is wrong with the cases below a folder."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

from harness.case_tools.known import KnownCases


@dataclass(frozen=True)
class CaseFinding:
    """Something wrong: where (relative to the folder of cases), of which kind, in a sentence."""

    case: str
    kind: str
    message: str

    def sentence(self) -> str:
        """One line for a person."""
        return f"{self.case}: {self.message}"


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
        total, wrong = sum(self.states.values()), len(self.findings)
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        found = f"{wrong} finding{'' if wrong == 1 else 's'}" if wrong else "nothing is wrong"
        return f"{self.path}: {total} cases ({states}): {found}"


def lint(cases: KnownCases) -> CaseReport:
    """Unreadable cases, names that two of them have, links that are not followed."""
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
    for link in cases.links:
        where = link.relative_to(root).as_posix()
        findings.append(CaseFinding(where, "link", "is a symbolic link to a folder, and is not followed"))
    reasons = Counter(case.reason for case in cases.all if case.state == "not run")
    return CaseReport(str(root), Counter(case.state for case in cases.all), reasons, tuple(findings))
