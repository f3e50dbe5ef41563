"""A night in JUnit's format, which GitLab shows beside a merge request: a test case for each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from harness.text import printable

if TYPE_CHECKING:
    from harness.matrix import Cell
    from harness.night.outcome import Outcome
    from harness.night.quarantine import Entry


def junit(outcomes: Sequence[Outcome], held: Mapping[Cell, Entry]) -> str:
    """The XML.

    A red cell is a failure: what, since, lost, the command. One in quarantine and one that did not run are
    skipped, with the reason.

    Args:
        outcomes: of all cells.
        held: the quarantine entry of each cell that has one.
    """
    suite = ET.Element("testsuite", name="harness", tests=str(len(outcomes)))
    failures = skipped = 0
    for outcome in outcomes:
        cell, head = outcome.cell, outcome.headline
        took = outcome.verdict.timing.get("total", 0.0) if outcome.verdict else 0.0
        name = f"{cell.hardware}.{cell.track}"
        case = ET.SubElement(suite, "testcase", classname=name, name=cell.case, time=f"{took:.3f}")
        if outcome.green:
            continue
        entry = held.get(cell)
        if outcome.red and entry is None:
            failures += 1
            failure = ET.SubElement(case, "failure", message=_legal(head.what), type=outcome.state)
            failure.text = _legal(f"since: {head.since}\nlost:  {head.lost}\n\n{head.command}\n")
        else:
            skipped += 1
            why = f"red, in quarantine until {entry.expires}: {entry.reason}" if entry else head.what
            ET.SubElement(case, "skipped", message=_legal(why))
    suite.set("failures", str(failures))
    suite.set("skipped", str(skipped))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _legal(text: str) -> str:
    """Without what XML 1.0 has no character for."""
    return printable(text).replace("\ufffe", "?").replace("\uffff", "?")
