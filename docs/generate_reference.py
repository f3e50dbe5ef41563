"""``docs/reference``: pages made from the code that they are about.

``python docs/generate_reference.py`` writes them; a test says whether that was forgotten.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec

FOLDER = Path(__file__).parent / "reference"
sys.path.insert(0, str(Path(__file__).parents[1]))  # the harness beside this folder, installed or not

from harness import errors
from harness.cases import HarnessKeys, keys, load_case
from harness.checkpoints.coverage import Coverage
from harness.commands import cli
from harness.checks.result import Against, Check, Kind, Worst
from harness.diagnosis.result import COMPONENTS, Diagnosis
from harness.matrix import HARDWARE, TRACKS
from harness.verdict import Run, Status, Verdict
from harness.trainers import TRAINERS
from harness.trainers.base import Phase, PhaseName, placeholders

MEANINGS = {
    "EXIT_PASSED": "passed",
    "EXIT_FAILED": "a check failed",
    "EXIT_USAGE": "usage, or a bad input file",
    "EXIT_NOTHING": "nothing to do",
    "EXIT_CRASHED": "the trainer crashed or hung",
    "EXIT_INTERRUPTED": "interrupted; nothing is left running",
}
LOST = {
    "weights": "parameters, or the masters that they are rounded from",
    "optimizer": "moments, step counts or hyperparameters of the optimizer",
    "lr-schedule": "the position of the learning-rate schedule",
    "rng": "the state of a random stream",
    "data-order": "the position in the data, or their order",
    "grad-scaler": "the loss scale or its counters",
    "experts": "the parameters of experts or their router",
    "embedding": "the embedding, or the output layer tied to it",
    "buffers": "state that is no parameter: running statistics, averaged weights",
    "iteration": "the number of the iteration",
    "checkpoint": "the checkpoint as a whole: torn, incomplete, not the one that was meant",
    "performance": "slower than the golden allows",
    "memory": "more memory than the golden allows",
    "nondeterminism": "the same run twice does not give the same bits: not a matter of resuming",
    "crash": "a phase crashed or hung",
    "unknown": "something differs, and nothing says what",
}


def pages() -> dict[str, str]:
    """File names and their Markdown."""
    return {
        "command-line.md": command_line(),
        "case-file.md": case_file(),
        "verdict.md": verdict(),
        "words.md": words(),
    }


def command_line() -> str:
    """Every command and its options; not argparse's own text, which no two versions of Python lay out alike."""
    parts = ["# Command line", "`python -m harness` is the same as `harness`."]
    for name, parser in commands(cli.parser()):
        parts += [f"## {name}", (parser.description or "").strip()]
        actions = [one for one in parser._actions if one.help != argparse.SUPPRESS]  # noqa: SLF001
        below = [one for one in actions if isinstance(one, argparse._SubParsersAction)]  # noqa: SLF001
        for action in below:
            rows = [(f"`{name} {one.dest}`", one.help or "") for one in action._choices_actions]  # noqa: SLF001
            parts.append(table("command", "", rows=rows))
        given = [one for one in actions if one not in below and not isinstance(one, argparse._HelpAction)]  # noqa: SLF001
        if given:
            parts.append(table("argument", "", rows=[(_written(one), _said(one, parser)) for one in given]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _written(action: argparse.Action) -> str:
    """As it is typed: ``--crash-at {saving,between-steps}``, ``[RESULTS]``."""
    value = ""
    if action.nargs != 0:
        choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""
        names = [action.metavar] if isinstance(action.metavar, str) else list(action.metavar or ())
        value = " ".join(names) or choices or action.dest.upper()
        value = {"?": f"[{value}]", "*": f"[{value} …]", "+": f"{value} …"}.get(str(action.nargs), value)
    return ", ".join(f"`{' '.join(filter(None, (name, value)))}`" for name in action.option_strings or [""])


def _said(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """Its help; what is in angle brackets there is no HTML."""
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    needed = "needed" if action.option_strings and action.required else ""
    return "; ".join(filter(None, (needed, text.replace("<", "&lt;"))))


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and all below it, each with its name."""
    yield parser.prog, parser
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for below in action.choices.values():
                yield from commands(below)


def case_file() -> str:
    """The keys of model_config.yaml."""
    rows = [(f"`{one.encode_name}`", _described(one.type)) for one in msgspec.structs.fields(keys.CaseFile)]
    ours = arguments(HarnessKeys)
    _same("the keys below HARNESS", set(keys.Harness.__struct_fields__), set(ours))
    below = [
        (f"`{key}`", ours[key].replace("None:", "without it:")) for key in keys.Harness.__struct_fields__
    ]
    phase = Phase("continuous", Path("F"), Path("F/checkpoints"), None, 0, 1, 1, 1)
    case = load_case(Path(__file__).parent / "examples/plain/tiny_lm")
    names = ", ".join(f"`${{{name}}}`" for name in sorted(placeholders(case, phase)))
    return f"""# Case file

`test_cases/<family>/<case>/model_config.yaml`. The folder's name is the case's; it is unique over all families.
For editors there is [a JSON schema](../schemas/model_config.json): [how to name it](../how-to/add-a-case.md).

{table("key", "", rows=rows)}

Other keys of Megatron-LM's are kept and mean nothing. A misspelt one is refused.

## HARNESS

{table("key", "", rows=below)}

Trainers: {", ".join(f"`{name}`" for name in TRAINERS)}. What `profiles` says comes last; `false` takes an argument away.

## Names that are replaced

{names}: see [anybody's script](../command-trainer.md#what-the-case-says).
"""


def _described(kind: Any) -> str:
    """What a key's type says of it."""
    (text,) = [meta.description for meta in get_args(kind)[1:]]
    text = str(text).replace("the others are", "[the others](../megatron.md#what-is-run) are")
    return text.replace("all that is ours", "all that is ours; see below")


def verdict() -> str:
    """What verdict.json holds."""
    parts = [
        "# verdict.json",
        "`results/<hardware>/<track>/<case>/verdict.json`. NaN and infinity are words there: `nan`, `inf`."
        "\nAll keys are there, and more may come: [its JSON schema](../schemas/verdict.json).",
        fields(Verdict),
        "## checks[]",
        fields(Check),
        "## checks[].worst",
        fields(Worst),
        "## diagnosis",
        fields(Diagnosis).replace("COMPONENTS", "[these](words.md#components)"),
        "## run",
        fields(Run),
        "## coverage",
        fields(Coverage),
    ]
    return "\n\n".join(parts) + "\n"


def words() -> str:
    """Exit statuses, components, tracks, hardware, phases."""
    codes = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    _same("exit statuses", set(codes), set(MEANINGS))
    _same("components", set(COMPONENTS), set(LOST))
    kinds = [
        (f"`{name}`", f"`{one.platform}`", ", ".join(one.device_names) or "the CPU")
        for name, one in HARDWARE.items()
    ]
    raised = [
        (f"`{one.__name__}`", str(one.exit_code), str(inspect.getdoc(one)).splitlines()[0])
        for one in vars(errors).values()
        if inspect.isclass(one) and issubclass(one, errors.HarnessError) and one is not errors.HarnessError
    ]
    return (
        "\n\n".join(
            [
                "# Words and numbers",
                "## Exit status",
                table("status", "", rows=[(str(codes[name]), text) for name, text in MEANINGS.items()]),
                "## Components",
                "What a diagnosis says was lost.",
                table("component", "", rows=[(f"`{name}`", LOST[name]) for name in COMPONENTS]),
                "## Hardware",
                table("hardware", "platform of its goldens", "words in the device's name", rows=kinds),
                "## Tracks",
                table("track", "torch", rows=[(f"`{name}`", one.torch) for name, one in TRACKS.items()]),
                "## Phases",
                ", ".join(f"`{name}`" for name in get_args(PhaseName))
                + ": see [architecture](../architecture.md#words).",
                "## Errors",
                table("error", "status", "", rows=raised),
            ]
        )
        + "\n"
    )


def fields(data: Any) -> str:
    """A dataclass as a table: its fields, their types, and what its docstring says of them."""
    said = arguments(data)
    rows = [
        (f"`{one.name}`", _in_json(str(one.type)), re.sub(r"\bNone\b", "null", said.get(one.name, "")))
        for one in dataclasses.fields(data)
    ]
    return table("key", "type", "", rows=rows)


def _in_json(hint: str) -> str:
    """A type hint in JSON's words."""
    for name, literal in (("Status", Status), ("Against", Against), ("Kind", Kind)):
        if hint == name:
            return ", ".join(f"`{value}`" for value in get_args(literal))
    kinds = {"str": "text", "float": "number", "int": "whole number", "bool": "true or false", "None": "null"}
    kinds |= dict.fromkeys(("Worst", "Diagnosis", "Run", "Coverage", "Count"), "object")
    if listed := re.fullmatch(r"tuple\[(\w+), \.\.\.\]", hint):
        return f"list of {kinds[listed[1]]}s" if listed[1] in kinds else "list"
    if hint.startswith("Mapping["):
        return "object"
    return " or ".join(kinds[part] for part in hint.split(" | "))


def arguments(data: Any) -> dict[str, str]:
    """Names and texts below ``Args:`` in a docstring."""
    found: dict[str, str] = {}
    below = (inspect.getdoc(data) or "").partition("Args:\n")[2]
    for entry in re.split(r"\n(?=    \S)", below):
        names, _, text = entry.strip().partition(": ")
        plain = re.sub(r":data:`(\w+)`", r"\1", " ".join(text.split())).replace("``", "`")
        found |= dict.fromkeys(names.split(", "), plain.rstrip("."))
    return found


def table(*head: str, rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _same(what: str, code: set[str], here: set[str]) -> None:
    if code != here:
        raise ValueError(f"{__file__}: {what}: the code and this file differ by {sorted(code ^ here)}")


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
