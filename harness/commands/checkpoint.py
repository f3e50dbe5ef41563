"""``harness checkpoint diff | show | verify | alter``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import alter
from harness.commands.output import as_json, flag_json, line, table
from harness.errors import EXIT_FAILED, EXIT_PASSED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.checkpoints import Checkpoint, StateDiff, TensorDiff

_ONE = "an iteration's folder, a folder of checkpoints (its latest), or a file"
_SHOWN = 40  # rows of a table; --json has all of them


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """The options."""
    group = commands.add_parser("checkpoint", help="look into saved state; nothing in it is executed")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)
    command = verbs.add_parser("diff", help="two states, tensor by tensor; exit status 1 if they differ")
    command.set_defaults(do=_diff)
    command.add_argument("a", metavar="A", type=Path, help=_ONE)
    command.add_argument("b", metavar="B", type=Path, help="the same, of any format and layout")
    command.add_argument("--all", action="store_true", help=f"every row, not the first {_SHOWN}")
    flag_json(command)
    command = verbs.add_parser("show", help="names, types, shapes, and a digest of each component")
    command.set_defaults(do=_show)
    command.add_argument("path", metavar="PATH", type=Path, help=_ONE)
    command.add_argument(
        "--all", action="store_true", help="each of a script's arguments, not one row for all"
    )
    flag_json(command)
    command = verbs.add_parser("verify", help="whether everything is there, and as it was saved")
    command.set_defaults(do=_verify)
    command.add_argument("path", metavar="PATH", type=Path, help=_ONE)
    flag_json(command)
    alter.add(verbs)


def _diff(arguments: argparse.Namespace) -> int:
    from harness.checkpoints import diff, open_checkpoint
    from harness.trainers.megatron.rules import rules_for

    rules = rules_for(open_checkpoint(arguments.a).names())
    found = diff(arguments.a, arguments.b, rules=rules)
    if arguments.json:
        as_json(found.as_dict())
    else:
        _print(found, None if arguments.all else _SHOWN)
    return EXIT_PASSED if found.equal else EXIT_FAILED


def _print(found: StateDiff, shown: int | None) -> None:
    line(f"A: {found.a}")
    line(f"B: {found.b}")
    entries = [entry for group in found.by_component().values() for entry in group]
    if entries:
        columns = ("component", "name", "what", "elements", "largest", "relative", "first", "A", "B")
        table(columns, map(_row, entries[:shown]))
    if shown is not None and len(entries) > shown:
        line(f"and {len(entries) - shown} more (--all shows them)")
    for side, gaps in (("A", found.gaps_a), ("B", found.gaps_b)):
        for gap in gaps:
            line(f"{side}: {gap.component}: {gap.sentence}")
    for file, reason in found.unread.items():
        line(f"not compared: {file}: {reason}")
    for rule in found.coverage.rules:
        line(f"left out: {rule.sentence()}")
    line(f"state: {found.coverage.sentence()}")
    line(_summary(found))


def _summary(found: StateDiff) -> str:
    if not found.compared:
        return "nothing could be compared: the two have no name in common"
    read = f"{found.bytes_read / 1e6:.1f} MB read"
    layouts = ", across layouts" if found.layouts_differ else ""
    if found.equal:
        return f"equal: {found.compared} names, bit for bit{layouts}; {read}"
    parts = [f"{component} {len(group)}" for component, group in found.by_component().items()]
    return f"{len(found.entries)} differ of {found.compared} compared{layouts} ({', '.join(parts)}); {read}"


def _row(entry: TensorDiff) -> tuple[object, ...]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    first = list(entry.index) if entry.index else ""
    what = entry.reason if entry.reason != "values" else "values differ"
    return (
        entry.component,
        entry.name,
        f"{what} ({entry.detail})" if entry.detail else what,
        f"{entry.differing} of {entry.elements}",
        number(entry.max_abs),
        number(entry.max_rel),
        first,
        "" if entry.a is None else entry.a,
        "" if entry.b is None else entry.b,
    )


def _show(arguments: argparse.Namespace) -> int:
    from harness.checkpoints import fingerprint, open_checkpoint

    checkpoint = open_checkpoint(arguments.path)
    digests = fingerprint(arguments.path)
    rows: list[dict[str, object]] = [
        {"name": name, "component": entry.component, "dtype": entry.dtype, "shape": list(entry.shape)}
        for name, entry in sorted(checkpoint.entries.items())
    ]
    if arguments.json:
        as_json(
            {
                "path": str(checkpoint.path),
                "format": checkpoint.format,
                "layout": dict(checkpoint.layout),
                "digests": digests,
                "entries": rows,
            }
        )
        return EXIT_PASSED
    layout = ", ".join(f"{key.upper()} {value}" for key, value in checkpoint.layout.items())
    line(f"{checkpoint.path}: {checkpoint.format}, {len(rows)} names{f', {layout}' if layout else ''}")
    keys = ("component", "name", "dtype", "shape")
    shown = rows if arguments.all else _folded(checkpoint, rows)
    table(("component", "name", "type", "shape"), [[row[key] for key in keys] for row in shown])
    for component, digest in digests.items():
        line(f"{component}: sha256 {digest}")
    return EXIT_PASSED


def _folded(checkpoint: Checkpoint, rows: Iterable[dict[str, object]]) -> list[dict[str, object]]:
    """Rows by name, those of a script's arguments as one: they are hundreds, and none of them is state."""
    from harness.checkpoints.components import is_argument

    kept: dict[str, dict[str, object]] = {}
    for row in rows:
        name = str(row["name"])
        key = checkpoint.entries[name].key or name
        if not is_argument(key):
            kept[name] = row
            continue
        folded = f"{name.removesuffix(key)}args.*"
        whole = kept.setdefault(folded, {**row, "name": folded, "dtype": "arguments", "shape": 0})
        whole["shape"] = int(str(whole["shape"])) + 1
    return list(kept.values())


def _verify(arguments: argparse.Namespace) -> int:
    from harness.checkpoints import iter_dir, latest, verify

    path = arguments.path
    iteration = latest(path) if path.is_dir() else None
    if iteration is not None:
        path = iter_dir(path, iteration)
    found = verify(path, hashes=True)
    how = "by its manifest" if found.manifest else "as far as the files say; it has no manifest"
    if arguments.json:
        as_json(
            {"path": str(path), "files": found.files, "bytes": found.nbytes, "manifest": found.manifest,
             "hashed": found.hashed}
        )  # fmt: skip
    else:
        line(f"{path}: whole: {found.files} files, {found.nbytes / 1e6:.1f} MB, {how}")
    return EXIT_PASSED
