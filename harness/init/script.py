"""Look at a training script, without running it: its framework, its options, what it saves and prints."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UsageError
from harness.init.frameworks import Framework, Role
from harness.init.printed import Printed, printed
from harness.init.syntax import assigned, attributes, constant, dotted
from harness.init.told import Told, fields_asked_for, framework_of, parsed, told
from harness.trainers.command.libraries import imported

#: What an option is for, by the words of its name (``--max_steps`` → ``max-steps``); the first that fits.
_ROLES: tuple[tuple[Role, str], ...] = (
    ("stop", r"stop(-(at|after|step|steps|iter|iters|iteration))?|exit-(iter|iters|interval|step|at)|until"),
    ("report", r"report-to"),
    (
        "every",
        r"(save|ckpt|checkpoint|checkpointing)-(every|interval|freq|steps|iters|every-n-steps)|(save|ckpt)-n-steps",
    ),
    ("log", r"(log|print|report)(ging)?-(every|interval|freq|steps|iters|every-n-steps)"),
    (
        "resume",
        r"(resume|restore|load|continue)(-(from|path|dir|checkpoint|ckpt|from-checkpoint|from-ckpt))*",
    ),
    ("steps", r"((max|num|total|train|training|n)-)*(steps|iters|iterations|updates)"),
    ("epochs", r"((max|num|total|train|n)-)*epochs?"),
    ("seed", r"(random-|manual-)?seed"),
    (
        "save",
        r"(save|ckpt|checkpoint|checkpoints|model|out|output|run|work|exp)(-(dir|path|folder|file|root|to))*"
        r"|save-(checkpoint|ckpt|model)(-(dir|path|to))?",
    ),
)


@dataclass(frozen=True)
class Option:
    """An option of the script's command line.

    Args:
        flag: as it is given, e.g. ``--max-steps``.
        dest: the attribute that the script reads.
        default: its default, where that is written down; else None.
        is_flag: it takes no value.
        required: the script does not start without it.
        line: where it is declared.
    """

    flag: str
    dest: str
    default: object
    is_flag: bool
    required: bool
    line: int


@dataclass(frozen=True)
class Saved:
    """A call that saves.

    Args:
        name: the file's name, with ``{}`` for what is put in; None where it cannot be told.
        below: the options that its path is made of.
        line: where.
    """

    name: str | None
    below: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Script:
    """What can be told of a script.

    Args:
        path: where it is.
        framework: whose trainer it uses; ``plain torch`` or ``none`` without one.
        imports: the packages that it imports, those of the standard library and of its repository left out.
        options: by role; what has none is left out.
        others: those without a role that the script does not start without.
        every: whole numbers that the step is divided by, where it saves.
        prints: lines with a step and a value.
        saves, loads: in their order.
        distributed: it makes a process group.
        logs: by ``harness.log``.
        known: the framework, where there is a page on it.
        told: what it tells that framework; of what is not told by an option, the option that it should have.
        parsed: the line where the framework's own parser reads the command line; 0 without one.
        reads: names of all attributes that it reads.
        parser, namespace: the names of its parser, and of what that gives; those that it should have.
    """

    path: Path
    framework: str
    imports: tuple[str, ...]
    options: Mapping[Role, Option] = field(default_factory=dict)
    others: tuple[Option, ...] = ()
    every: int | None = None
    prints: tuple[Printed, ...] = ()
    saves: tuple[Saved, ...] = ()
    loads: tuple[Saved, ...] = ()
    seeded: bool = False
    writes_metrics: bool = False
    distributed: bool = False
    logs: bool = False
    known: Framework | None = None
    told: tuple[Told, ...] = ()
    parsed: int = 0
    reads: frozenset[str] = frozenset()
    parser: str = "parser"
    namespace: str = "args"


def look(path: Path, root: Path | None = None) -> Script:
    """Read a script; nothing of it is run.

    Args:
        root: of its repository; a package that lies there, or in a folder on the way, is its own.

    Raises:
        UsageError: it cannot be read, or is no Python.
    """
    if path.suffix == ".ipynb":
        advice = "jupyter nbconvert --to script makes one of it"
        raise UsageError(f"{path}: is a notebook, expected a training script", advice)
    try:
        text = path.read_text(encoding="utf-8-sig")
        tree = ast.parse(text)
    except FileNotFoundError:
        raise UsageError(f"{path}: is not there, expected a training script", "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{path}: cannot be read: {said}") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # of what is nested too deep
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error) or "it is nested too deep"
        raise UsageError(f"{path}{line}: is not Python {sys.version_info.major}: {said}") from error
    imports = tuple(_imports(tree, _folders(path, root)))
    framework = framework_of(imports, tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [dotted(call.func) for call in calls]
    options = list(_options(calls))
    roles = _by_role([one for one in options if one.flag.startswith("-")], dict(_logged_below(tree)))
    own = parsed(framework, tree) if framework else 0
    by_dest = {one.dest: one for one in options}
    places = tuple(told(framework, tree, by_dest)) if framework and framework.page else ()
    roles |= {one.place.role: by_dest[one.option] for one in places if one.option}
    fields = (
        Option(f"--{name}", name, None, is_flag=False, required=True, line=at)
        for name, at in fields_asked_for(tree)
    )
    return Script(
        path=path,
        framework=framework.name if framework else "plain torch" if "torch" in imports else "none",
        imports=imports,
        options=roles,
        others=tuple(one for one in (*options, *fields) if one.required and one not in roles.values()),
        every=_saves_every(tree),
        prints=tuple(printed(calls)),
        saves=tuple(_files(calls, ("torch.save", "dcp.save", "save_state", "save_checkpoint"), 1, tree)),
        loads=tuple(_files(calls, ("torch.load", "dcp.load"), 0, tree)),
        seeded=any(
            name.endswith(("manual_seed", "seed_everything", "set_seed", "set_random_seed")) for name in names
        ),
        writes_metrics=any(name.endswith(("SummaryWriter", "TensorBoardLogger")) for name in names)
        or "metrics.jsonl" in text,
        logs="harness" in imported(tree),
        distributed=any(name.endswith("init_process_group") for name in names),
        known=framework if framework and framework.page else None,
        told=places,
        parsed=own,
        reads=frozenset(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)),
        parser=next((dotted(call.func).rpartition(".")[0] for call in calls if _adds(call)), "parser"),
        namespace=_namespace(tree),
    )


def _folders(path: Path, root: Path | None) -> list[Path]:
    """Where a module may lie that is the repository's own and no package of an index."""
    beside, last = path.parent.resolve(), (root or path.parent).resolve()
    above = [one for one in (beside, *beside.parents) if one == last or last in one.parents]
    return [beside, *above, last / "src"]


def _imports(tree: ast.Module, folders: Sequence[Path]) -> Iterator[str]:
    seen = {*sys.stdlib_module_names, "harness"}
    for name in (module.partition(".")[0] for module in imported(tree)):
        local = any((one / f"{name}.py").exists() or any((one / name).glob("*.py")) for one in folders)
        if name not in seen and not local:
            seen.add(name)
            yield name


def _adds(call: ast.Call) -> bool:
    return dotted(call.func).endswith(".add_argument")


def _namespace(tree: ast.Module) -> str:
    """``a`` of ``a = parser.parse_args()``; what has that name may be something else: then another."""
    names = assigned(tree)
    calls = {name: value for name, value in names.items() if isinstance(value, ast.Call)}
    mine = next((name for name, call in calls.items() if dotted(call.func).endswith("parse_args")), "")
    return mine or ("options" if "args" in names else "args")


# -- options -----------------------------------------------------------------------------------


def _options(calls: Sequence[ast.Call]) -> Iterator[Option]:
    """Those of argparse, and of click's and typer's decorators."""
    for call in calls:
        name = dotted(call.func)
        known = ("add_argument", "click.option", "click.argument", "typer.Option")
        if not name.endswith(known) and name != "option":
            continue
        words = [word for word in map(constant, call.args) if isinstance(word, str)]
        flags = [word for word in words if word.startswith("--")]
        said = {one.arg: constant(one.value) for one in call.keywords if one.arg}
        if not flags:
            if words and not words[0].startswith("-") and "nargs" not in said:
                yield Option(words[0], words[0], None, is_flag=False, required=True, line=call.lineno)
            continue
        flag, _, negative = max(flags, key=len).partition("/")  # click's --resume/--no-resume
        dest = str(said.get("dest") or flag.lstrip("-").replace("-", "_"))
        action = next((dotted(one.value) for one in call.keywords if one.arg == "action"), "")
        is_flag = str(said.get("action") or "").startswith("store_") or bool(said.get("is_flag"))
        is_flag = is_flag or bool(negative) or action.endswith("BooleanOptionalAction")
        is_flag = is_flag or (said.get("nargs") == "?" and "const" in said)
        required = said.get("required") is True
        yield Option(flag, dest, said.get("default"), is_flag, required, call.lineno)


def _by_role(options: Sequence[Option], logged: Mapping[str, Role]) -> dict[Role, Option]:
    """Those that are for something, by their names; by what is written below them, for ``logged``."""
    found: dict[Role, tuple[int, Option]] = {}
    for option in options:
        name = option.flag.lstrip("-").replace("_", "-").lower()
        by_name = next((role for role, words in _ROLES if re.fullmatch(words, name)), None)
        role = logged.get(option.dest, by_name)
        if role is None or (option.is_flag and role != "resume"):
            continue
        # Of several, the one that says most: --save-dir before --output-dir.
        worth = -_worth(role, name)
        if role not in found or worth < found[role][0]:
            found[role] = (worth, option)
    return {role: option for role, (_, option) in found.items()}


def _logged_below(tree: ast.Module) -> Iterator[tuple[str, Role]]:
    """``args.out / "metrics.jsonl"`` → ``out``, and the folder of a SummaryWriter."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.BinOp, ast.Call, ast.JoinedStr)) and any(
            map(_is_log, ast.iter_child_nodes(node))
        ):
            yield from ((name, "metrics") for name in attributes(node))
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("SummaryWriter"):
            yield from ((name, "events") for name in attributes(node))


def _is_log(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and str(node.value).endswith("metrics.jsonl")


def _worth(role: Role, name: str) -> int:
    best = {
        "save": ("save", "ckpt", "checkpoint"),
        "resume": ("resume", "load"),
        "steps": ("max", "train", "total"),
    }
    return sum(word in name for word in best.get(role, ()))


# -- what it does ------------------------------------------------------------------------------


def _saves_every(tree: ast.Module) -> int | None:
    """The number n of ``if step % n == 0:`` around a call that saves."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.If):
            continue
        saves = any(
            isinstance(inner, ast.Call) and "save" in dotted(inner.func).rpartition(".")[2].lower()
            for statement in node.body
            for inner in ast.walk(statement)
        )
        for inner in ast.walk(node.test) if saves else ():
            if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Mod):
                number = constant(inner.right)
                if isinstance(number, int) and number > 0:
                    return number
    return None


def _files(calls: Sequence[ast.Call], names: tuple[str, ...], at: int, tree: ast.Module) -> Iterator[Saved]:
    """The paths of calls that save or load; a name that stands for a path is looked up once."""
    paths = assigned(tree)
    for call in calls:
        if not dotted(call.func).endswith(names):
            continue
        given: ast.AST | None = call.args[at] if len(call.args) > at else None
        given = given or next((one.value for one in call.keywords if one.arg in ("f", "path")), None)
        if isinstance(given, ast.Name) and given.id in paths:
            given = paths[given.id]
        if given is not None:
            yield Saved(_last_part(given), tuple(attributes(given)), call.lineno)


def _last_part(node: ast.AST) -> str | None:
    """The last part of a path that an expression makes; None where it is all in a variable."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Div, ast.Add)):
        return _last_part(node.right)
    if isinstance(node, ast.Call) and node.args:
        return _last_part(node.args[-1])  # os.path.join, Path
    if isinstance(node, ast.JoinedStr):
        text = "".join(
            str(part.value) if isinstance(part, ast.Constant) else _braces(part) for part in node.values
        )
        return text.rpartition("/")[2] or None
    value = constant(node)
    return value.rpartition("/")[2] or None if isinstance(value, str) else None


def _braces(part: ast.expr) -> str:
    """A part of an f-string, with what is put in as ``{}`` and its format."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    spec = part.format_spec if isinstance(part, ast.FormattedValue) else None
    said = spec.values if isinstance(spec, ast.JoinedStr) else ()
    text = "".join(str(one.value) for one in said if isinstance(one, ast.Constant))
    return f"{{:{text}}}" if text else "{}"
