"""``harness goldens list | show | diff | lint | import | approve | drift``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import drift
from harness.commands.output import as_json, flag_json, line, table
from harness.errors import EXIT_FAILED, EXIT_NOTHING, EXIT_PASSED, EXIT_USAGE
from harness.matrix import HARDWARE, TRACKS

if TYPE_CHECKING:
    from harness.goldens.compare import MetricDiff
    from harness.goldens.store import Planned

#: What can be said of imported figures.
_SOURCE = ("repository", "commit", "licence", "data")
_WHAT = "a golden's file, a cell (HARDWARE/TRACK/CASE), or the folder of a cell's results"


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """The options."""
    group = commands.add_parser("goldens", help="look at the golden store, fill it, check it")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, do: Any, text: str) -> argparse.ArgumentParser:  # noqa: ANN401 - a function
        command: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
        command.set_defaults(do=do)
        flag_json(command)
        return command

    command = verb("list", _list, "which cell has which golden, how old, how recorded")
    _folders(command, "cases", "goldens")
    command.add_argument("--all", action="store_true", help="cells without a golden too")
    command = verb("show", _show, "what a golden holds")
    command.add_argument("what", metavar="WHAT", help=_WHAT)
    _folders(command, "goldens")
    command = verb("diff", _diff, "where two of them part, how far, which way; exit status 1 if they do")
    command.add_argument("a", metavar="A", help=_WHAT)
    command.add_argument("b", metavar="B", help="the same")
    _folders(command, "goldens")
    command = verb("lint", _lint, "read a whole store, ours or Megatron-LM's; exit status 1 on any finding")
    _path(command, "a store, a part of one, a file, or a checkout of Megatron-LM")
    command.add_argument("--cases", metavar="FOLDER", type=Path, help="where goldens do not lie beside them")
    command = verb("import", _import, "take the goldens of a Megatron-LM tree; never compared exactly")
    command.add_argument("path", metavar="PATH", type=Path, help="a checkout, a part of one, or a file")
    _folders(command, "goldens")
    for option, names in (("--track", TRACKS), ("--hardware", HARDWARE)):
        command.add_argument(option, action="append", choices=list(names), default=[], help="only this one's")
    command.add_argument("--replace", action="store_true", help="also what was recorded or approved here")
    for key in _SOURCE:
        said = " (git says it in a checkout)" if key in ("repository", "commit") else ""
        command.add_argument(
            f"--{key}", metavar="TEXT", default="", help=f"of the figures, for their provenance{said}"
        )
    _dry_run(command)
    command = verb("approve", _approve, "make the values of finished runs the goldens; all of them or none")
    command.add_argument("results", metavar="RESULTS", type=Path, help="of one cell, or a folder above some")
    _folders(command, "cases", "goldens")
    _dry_run(command)
    command = verb("drift", drift.do, drift.HELP)
    drift.options(command)
    _folders(command, "results", "cases", "goldens")
    _dry_run(command)


def _path(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument(
        "path", metavar="PATH", type=Path, nargs="?", default=Path("goldens"),
        help=f"{text}; default: %(default)s",
    )  # fmt: skip


def _folders(command: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        default = Path("test_cases" if name == "cases" else name)
        text = f"folder of {name}, default: %(default)s"
        command.add_argument(f"--{name}", metavar="FOLDER", type=Path, default=default, help=text)


def _dry_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")


# -- looking -----------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> int:
    from datetime import datetime, timezone

    from harness.goldens.listing import rows

    found = rows(arguments.cases, arguments.goldens)
    broken = any(row.compared == "broken" for row in found)
    if arguments.json:
        as_json([row.as_dict() for row in found])
        return EXIT_USAGE if broken else EXIT_PASSED
    shown = [row for row in found if arguments.all or row.compared != "none"]
    now = datetime.now(timezone.utc)
    if shown:
        table(
            ("cell", "compared", "age", "how", "on", "golden"),
            [(r.cell, r.compared, r.age(now), r.how, r.on, r.error or r.file or "") for r in shown],
        )
    if len(shown) < len(found):
        line(f"{len(found) - len(shown)} of {len(found)} cells have no golden (--all shows them)")
    return EXIT_USAGE if broken else EXIT_PASSED


def _show(arguments: argparse.Namespace) -> int:
    from harness.goldens.sources import load

    source = load(arguments.what, arguments.goldens)
    if arguments.json:
        as_json({"source": source.label, "provenance": source.provenance, "values": source.values})
        return EXIT_PASSED
    line(source.label)
    for key, value in _flat(source.provenance):
        line(f"  {key}: {value}")
    rows = []
    for name, values in source.values.items():
        steps = list(values)
        low, high = min(values, key=lambda s: values[s]), max(values, key=lambda s: values[s])
        rows.append(
            (name, len(steps), steps[0], steps[-1], repr(values[steps[0]]), repr(values[steps[-1]]),
             f"{values[low]!r} at {low}", f"{values[high]!r} at {high}")
        )  # fmt: skip
    table(("metric", "steps", "from", "to", "first", "last", "lowest", "highest"), rows)
    return EXIT_PASSED


def _flat(provenance: Any, prefix: str = "") -> list[tuple[str, object]]:  # noqa: ANN401 - from a file
    found: list[tuple[str, object]] = []
    for key, value in provenance.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            found += _flat(value, f"{name}: ")
        else:
            found.append((name, "none" if value == {} else value))
    return found


def _diff(arguments: argparse.Namespace) -> int:
    from harness.goldens.compare import compare
    from harness.goldens.sources import load
    from harness.goldens.subjects import changes

    a, b = (load(what, arguments.goldens) for what in (arguments.a, arguments.b))
    found = compare(a, b)
    same = all(metric.same for metric in found)
    subject = changes(a.provenance, b.provenance)
    if arguments.json:
        metrics = [metric.as_dict() for metric in found]
        as_json({"a": a.label, "b": b.label, "same": same, "metrics": metrics, "subject": subject})
    else:
        line(f"A: {a.label}")
        line(f"B: {b.label}")
        for what in subject:
            line(f"another subject (A recorded, B run): {what}")
        for metric in found:
            line(metric.sentence())
    return EXIT_PASSED if same else EXIT_FAILED


def _lint(arguments: argparse.Namespace) -> int:
    from harness.goldens.lint import lint

    report = lint(arguments.path, arguments.cases)
    if arguments.json:
        as_json(report.as_dict())
    else:
        for finding in report.findings:
            line(finding.sentence())
        line(report.summary())
    return EXIT_FAILED if report.findings else EXIT_PASSED


# -- filling -----------------------------------------------------------------------------------


def _import(arguments: argparse.Namespace) -> int:
    from harness.goldens.importing import plan
    from harness.goldens.store import put

    found = plan(
        arguments.path, arguments.goldens,
        tracks=arguments.track, hardware=arguments.hardware, replace=arguments.replace,
        told={key: getattr(arguments, key) for key in _SOURCE},
    )  # fmt: skip
    changes = [_changes(golden) for golden in found.planned]
    if not arguments.dry_run:
        put(arguments.goldens, found.planned)
    if arguments.json:
        left = [{"file": str(each.file), "reason": each.reason} for each in found.left]
        same = [str(path) for path in found.same]
        as_json({"imported": _json(found.planned, changes), "same": same, "left": left})
    else:
        for each in found.left:
            line(f"not imported: {each.file}: {each.reason}")
        for path in found.same:
            line(f"the store has it: {path}")
        _say("would import" if arguments.dry_run else "imported", found.planned, changes)
        done = "would be imported" if arguments.dry_run else "imported"
        line(f"{len(found.planned)} {done}, {len(found.same)} there already, {len(found.left)} not imported")
    return EXIT_PASSED if found.planned or found.same else EXIT_NOTHING


def _approve(arguments: argparse.Namespace) -> int:
    from harness.goldens.approving import plan
    from harness.goldens.store import put

    planned, refused = plan(arguments.results, arguments.goldens, arguments.cases)
    changes = [_changes(golden) for golden in planned]
    write = not refused and not arguments.dry_run
    if write:
        put(arguments.goldens, planned)
    if arguments.json:
        reasons = [{"cell": each.cell, "reason": each.reason} for each in refused]
        as_json({"written": write, "approved": _json(planned, changes), "refused": reasons})
    else:
        _say("approved" if write else "would approve", planned, changes)
        for each in refused:
            line(f"refused: {each.cell}: {each.reason}")
        if refused:
            line("nothing was written: all are approved or none; name a cell's folder to approve it alone")
    return EXIT_FAILED if refused else EXIT_PASSED


def _changes(golden: Planned) -> str | list[MetricDiff]:
    found = golden.changes()
    return found if isinstance(found, str) else [metric for metric in found if not metric.same]


def _say(word: str, planned: Sequence[Planned], changes: Sequence[str | list[MetricDiff]]) -> None:
    for golden, change in zip(planned, changes, strict=True):
        said = change if isinstance(change, str) else "no value changes" if not change else "values change:"
        line(f"{word}: {golden.path} from {golden.source}: {said}")
        for metric in () if isinstance(change, str) else change:
            line(f"  {metric.sentence()}")
        for remark in golden.remarks:
            line(f"  {remark}")


def _json(planned: Sequence[Planned], changes: Sequence[str | list[MetricDiff]]) -> list[dict[str, Any]]:
    return [
        {
            "golden": str(golden.path),
            "from": str(golden.source),
            "changes": change if isinstance(change, str) else [metric.as_dict() for metric in change],
            "remarks": list(golden.remarks),
        }
        for golden, change in zip(planned, changes, strict=True)
    ]
