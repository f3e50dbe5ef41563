"""``harness checkpoint alter``: a copy of a checkpoint in which some entries are other ones."""

from __future__ import annotations

import argparse
import fnmatch
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.output import as_json, flag_json, line, table
from harness.errors import EXIT_PASSED, CheckpointError

if TYPE_CHECKING:
    from harness.ablation import Alterable


def add(verbs: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """The options."""
    command = verbs.add_parser(
        "alter", help="a copy in which some entries have other values: does a trainer take them up?"
    )
    command.set_defaults(do=_alter)
    command.add_argument("source", metavar="SRC", type=Path, help="a checkpoint's folder, or a file")
    command.add_argument(
        "target", metavar="DST", type=Path, nargs="?", help="where the copy goes; not there yet"
    )
    command.add_argument(
        "--entry",
        metavar="NAME",
        action="append",
        default=[],
        help="as diff prints it, or a pattern; repeatable",
    )
    command.add_argument(
        "--component", metavar="WORD", action="append", default=[], help="all entries of it; repeatable"
    )
    command.add_argument("--list", action="store_true", help="the entries, and why some cannot be altered")
    flag_json(command)


def _alter(arguments: argparse.Namespace) -> int:
    from harness.ablation import alter, alterable
    from harness.checkpoints import open_checkpoint
    from harness.trainers.megatron.rules import rules_for

    source: Path = arguments.source
    found = alterable(source, rules_for(open_checkpoint(source).names()))
    if arguments.list:
        _list(found, as_table=not arguments.json)
        return EXIT_PASSED
    if arguments.target is None:
        raise CheckpointError("DST is missing: where shall the copy go?", "harness checkpoint alter SRC DST")
    names = _chosen(found, arguments.entry, arguments.component, source)
    target: Path = arguments.target
    if target.exists():
        raise CheckpointError(f"{target}: is there already, expected a place for a copy", "name another one")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, target)  # links become what they lead to: the copy is nobody else's
        alter(target, names)
    except BaseException:
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        raise
    more = sorted({name for each in found if each.name in names for name in each.together} - names)
    if arguments.json:
        as_json({"source": str(source), "target": str(target), "altered": sorted(names), "together": more})
        return EXIT_PASSED
    line(f"{target}: altered {len(names)} of {len(found)} entries: {_some(sorted(names))}")
    if more:
        line(f"in the same bytes, and altered with them: {_some(more)}")
    return EXIT_PASSED


def _chosen(found: tuple[Alterable, ...], names: list[str], words: list[str], source: Path) -> set[str]:
    """The names that were asked for; of a component or a pattern, those that can be altered."""
    known = {each.name: each for each in found}
    chosen: set[str] = set()
    for name in names:
        if name in known:
            chosen.add(name)
            continue
        some = {each for each in fnmatch.filter(known, name) if not known[each].reason}
        if not some:
            raise CheckpointError(f"{source}: holds no {name} that can be altered", "--list shows the names")
        chosen |= some
    for word in words:
        some = {each.name for each in found if each.component == word and not each.reason}
        if not some:
            there = ", ".join(sorted({each.component for each in found}))
            raise CheckpointError(f"{source}: holds nothing of {word} to alter, only of {there}")
        chosen |= some
    if not chosen:
        raise CheckpointError(
            "no entry was named, expected those to alter",
            "--entry NAME or --component WORD; --list shows them",
        )
    return chosen


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _list(found: tuple[Alterable, ...], *, as_table: bool) -> None:
    if not as_table:
        as_json([
            {"name": each.name, "component": each.component, "dtype": each.dtype, "nbytes": each.nbytes,
             "file": each.file, "reason": each.reason, "together": list(each.together)}
            for each in found
        ])  # fmt: skip
        return
    columns = ("component", "name", "type", "bytes", "cannot be altered", "in the same bytes")
    table(
        columns,
        [
            (one.component, one.name, one.dtype, one.nbytes, one.reason, ", ".join(one.together))
            for one in found
        ],
    )
    line(f"{sum(not each.reason for each in found)} of {len(found)} entries can be altered")
