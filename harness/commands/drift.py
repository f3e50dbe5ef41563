"""``harness goldens drift``: one commit in two environments, one table, one approval for all."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from harness.commands.output import as_json, line, table
from harness.errors import EXIT_FAILED, EXIT_PASSED

if TYPE_CHECKING:
    from harness.goldens.approving import Refused
    from harness.goldens.drift import Changed, Compared, Drift
    from harness.goldens.store import Planned

HELP: Final = "what moves between two environments at one commit, and approve all of it at once"
_TEXT: Final = """\
Two environments have run the same cells of the same commit (two images, two sets of pins, two
tracks), with --protocol full. Every cell is compared bit for bit; what drifts is one row of the
table, with the operation that gives other bits and whether it is of the size of rounding.
"""
_EPILOG: Final = """\
an ENVIRONMENT is
  a folder of results   results-old, results/cpu, results/cpu/dev/<case>, an artifact of CI
  a track               lts or dev: its results below --results, compared case by case

  harness goldens drift --from results-old --to results-new
  harness goldens drift --from lts --to dev
  harness goldens drift --from results-old --to results-new --approve --dry-run

exit status: 0 all is equal, or was approved; 1 something drifted, was not compared or not approved;
2 usage or bad input; 3 no results
"""


def options(command: argparse.ArgumentParser) -> None:
    """Its own; those that other commands have too are added by them."""
    command.description, command.epilog = _TEXT, _EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    what = "folder of results, or a track of --results"
    command.add_argument("--from", dest="old", metavar="ENVIRONMENT", required=True, help=f"the old: {what}")
    command.add_argument("--to", dest="new", metavar="ENVIRONMENT", required=True, help="the new: the same")
    command.add_argument(
        "--without", metavar="CELL", action="append", default=[],
        help="leave it out: HARDWARE/TRACK/CASE, * stands for anything; may be given more than once",
    )  # fmt: skip
    command.add_argument(
        "--across-commits", action="store_true",
        help="compare also runs of different, changed or unknown commits: you vouch for what lies between",
    )  # fmt: skip
    command.add_argument(
        "--approve", action="store_true",
        help="make the values of --to the goldens of its cells, equal ones too: all of them or none",
    )  # fmt: skip
    command.add_argument(
        "--accept", metavar="CELL", action="append", default=[],
        help="with --approve: also this one, which would be refused because somebody has to look at it "
        "(more than rounding, unexplained, not its golden before); * as above; may be given more than once",
    )  # fmt: skip


def do(arguments: argparse.Namespace) -> int:
    """Compare, show, and approve if asked to."""
    from harness.goldens.drift import drift
    from harness.goldens.environments import Environment
    from harness.goldens.store import put

    old, new = (Environment.of(said, arguments.results) for said in (arguments.old, arguments.new))
    found = drift(
        old, new, arguments.cases, without=arguments.without, across_commits=arguments.across_commits
    )
    if not arguments.approve:
        if arguments.json:
            as_json(found.as_dict())
        else:
            _show(found)
        return EXIT_PASSED if found.same else EXIT_FAILED
    planned, refused = found.approval(arguments.goldens, arguments.cases, arguments.accept)
    said = [_said(golden) for golden in planned]  # before the old ones are replaced
    write = bool(planned) and not refused and not arguments.dry_run
    if write:
        put(arguments.goldens, planned)
    if arguments.json:
        approved = [
            {"golden": str(golden.path), "from": str(golden.source), "changes": change,
             "remarks": golden.remarks}
            for golden, change in zip(planned, said, strict=True)
        ]  # fmt: skip
        reasons = [{"cell": each.cell, "reason": each.reason} for each in refused]
        as_json({**found.as_dict(), "written": write, "approved": approved, "not_approved": reasons})
    else:
        _show(found)
        _show_approval(planned, said, refused, write=write)
    return EXIT_FAILED if refused or not planned else EXIT_PASSED


def _show(found: Drift) -> None:
    from harness.goldens.environments import short

    line(f"from: {found.old}")
    line(f"to:   {found.new}")
    if found.commit:
        line(f"commit: {short(found.commit)}")
    for title, some in (
        ("environment", (one.environment for one in found.compared)),
        ("operations with other bits", (one.operations for one in found.compared)),
    ):
        if said := _counted(some, len(found.compared)):
            line(f"{title}: {'; '.join(said)}")
    if found.drifted:
        table(
            ("cell", "metric", "steps", "first", "largest, relative", "higher/lower", "operation", "size"),
            (row for one in found.drifted for row in _rows(one)),
        )
    for cost in _costs(found):
        line(cost)
    for one in found.compared:
        for concern in one.concerns:
            line(f"look at {one.cell}: {concern}")
    for each in found.refused:
        line(f"not compared: {each.cell}: {each.reason}")
    line(found.summary())


def _counted(some: Iterable[tuple[str, ...]], of: int) -> list[str]:
    """Each, with of how many cells it is; most first."""
    counts = Counter(one for many in some for one in many)
    return [
        one if count == of else f"{one} ({count} of {of} cells)"
        for one, count in sorted(counts.items(), key=lambda pair: -pair[1])
    ]


def _rows(cell: Compared) -> Iterator[tuple[object, ...]]:
    operation = _operation(cell)
    for one in cell.changed:
        diff = one.diff
        only = len(diff.only_a) + len(diff.only_b)
        steps = f"{diff.differing + only} of {diff.steps + only}"
        ways = f"{diff.higher}/{diff.lower}"
        yield cell.cell, diff.metric, steps, _first(one), _largest(one), ways, operation, _size(one)
    if cell.state and not cell.changed:
        more = f"at the end: {', '.join(cell.state)}"
        yield cell.cell, "state", more, "", "", "", operation, "not known"


def _operation(cell: Compared) -> str:
    if not cell.deterministic:
        return "not deterministic"
    if cell.unexplained:
        return "NONE: unexplained"
    if not cell.measured:
        return "not measured"
    more = len(cell.operations) - 1
    return cell.operations[0] + (f" and {more} more" if more else "")


def _first(one: Changed) -> int:
    steps = [*one.diff.only_a, *one.diff.only_b, *([one.diff.first[0]] if one.diff.first else [])]
    return min(steps)


def _largest(one: Changed) -> str:
    if one.diff.relative:
        step, ratio = one.diff.relative
        return f"{ratio:.2g} at {step}"
    if one.diff.largest:
        step, size = one.diff.largest
        return f"{size:.2g} (absolute) at {step}"
    return "only one has it"


def _size(one: Changed) -> str:
    return "rounding" if one.within else "MORE THAN ROUNDING"


def _costs(found: Drift) -> Iterator[str]:
    """One line a time or memory that is beyond its noise somewhere: from the lowest ratio to the highest."""
    by_metric: dict[str, list[tuple[float, str]]] = {}
    for one in found.compared:
        for cost in one.costs:
            ratio = cost.after / cost.before if cost.before else float("inf")
            by_metric.setdefault(cost.metric, []).append((ratio, one.cell))
    for metric, ratios in by_metric.items():
        (low, _), (high, cell) = min(ratios), max(ratios)
        span = f"×{low:.3g}" + (f" to ×{high:.3g} (in {cell})" if len(ratios) > 1 else f" (in {cell})")
        yield f"cost, no drift: {metric} {span}; {len(ratios)} of {len(found.compared)} cells"


def _said(golden: Planned) -> str:
    found = golden.changes()
    if isinstance(found, str):
        return found
    changed = [metric.metric for metric in found if not metric.same]
    return f"values change: {', '.join(changed)}" if changed else "no value changes"


def _show_approval(planned: list[Planned], said: list[str], refused: list[Refused], *, write: bool) -> None:
    for golden, change in zip(planned, said, strict=True):
        line(f"{'approved' if write else 'would approve'}: {golden.path} from {golden.source}: {change}")
        for remark in golden.remarks:
            line(f"  {remark}")
    for each in refused:
        line(f"not approved: {each.cell}: {each.reason}")
    if refused:
        line(
            "nothing was written: all are approved or none; --accept CELL takes what you have looked at,"
            " --without CELL leaves one out"
        )
    elif write:
        line(f"{len(planned)} golden{'' if len(planned) == 1 else 's'} approved")
