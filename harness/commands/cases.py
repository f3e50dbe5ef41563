"""``harness cases list`` and ``harness cases lint``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.output import as_json, flag_json, line, table
from harness.errors import EXIT_FAILED, EXIT_PASSED

if TYPE_CHECKING:
    from harness.case_tools.known import KnownCase

_HARDWARE = "h100"


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """The options."""
    group = commands.add_parser("cases", help="list or lint a folder of cases")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, do, text in (
        ("list", _list, "every case: run, not run and why, or unreadable"),
        ("lint", _lint, "what is wrong with the cases; exit status 1 if anything is but warnings"),
    ):
        command = verbs.add_parser(verb, help=text, description=text)
        command.set_defaults(do=do)
        command.add_argument(
            "path", metavar="PATH", type=Path, nargs="?", default=Path("test_cases"),
            help="a folder of cases, a case, or a checkout of Megatron-LM; default: %(default)s",
        )  # fmt: skip
        flag_json(command)


def _list(arguments: argparse.Namespace) -> int:
    from harness.case_tools.known import some_cases
    from harness.trainers.megatron import recipes as megatron_recipes

    cases = some_cases(arguments.path)
    checkout = megatron_recipes.find(cases.root)
    recipes = megatron_recipes.read(checkout) if checkout else megatron_recipes.Recipes()
    gpus = {product.case: product.gpus for product in recipes.products}
    rows = [_row(case, cases.root, gpus.get(case.name)) for case in cases.all]
    if arguments.json:
        as_json(rows)
        return EXIT_PASSED
    columns = ("case", "family", "state", "trainer", "test type", "N", "k", "ranks", "why, or what it needs")
    keys = ("name", "family", "state", "trainer", "test_type", "n", "k", "world_size", "remark")
    table(columns, [["" if row[key] is None else row[key] for key in keys] for row in rows])
    return EXIT_PASSED


def _row(known: KnownCase, root: Path, gpus: int | None) -> dict[str, Any]:
    from harness.trainers import trainer_of

    case = known.case
    row: dict[str, Any] = {
        "name": known.name,
        "path": known.path.relative_to(root).as_posix(),
        "family": known.path.absolute().parent.name,
        "state": known.state,
        "remark": known.reason or known.remark,
    }
    row |= dict.fromkeys(("trainer", "test_type", "n", "k", "world_size"))
    if case is not None:
        row |= {"trainer": case.trainer(_HARDWARE), "test_type": case.test_type}
    if case is not None and known.state == "run":
        trainer = trainer_of(case, _HARDWARE)
        row["n"] = case.train_iters(_HARDWARE)
        row["k"] = case.resume_at(_HARDWARE) if trainer.resumes else None
        # Megatron-LM's own is in a recipe of the checkout, or the environment's: not known without.
        known_here = case.harness.world_size or gpus
        row["world_size"] = known_here if trainer.name == "megatron" else trainer.world_size
    return row


def _lint(arguments: argparse.Namespace) -> int:
    from harness.case_tools.known import some_cases
    from harness.case_tools.lint import lint

    report = lint(some_cases(arguments.path))
    if arguments.json:
        as_json(report.as_dict())
    else:
        for finding in report.findings:
            line(finding.sentence())
        for reason, count in sorted(report.reasons.items()):
            line(f"not run: {count}: {reason}")
        line(report.summary())
    return EXIT_FAILED if report.failed else EXIT_PASSED
