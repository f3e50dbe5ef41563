"""Ranks of the native trainer in which every shape that a comment or a docstring gives is an assertion.

A comment at the end of a line begins with the shapes of what the line assigns or returns: ``# [s, b, h]``,
one for each target (``# [t, k], [t, h]``), ``# each [s, b]``, or one of several (``# [s, b, h] or []``). A
docstring has ```[in] → [out]```, of the first tensor and of the result, and ```name [shape]``` of arguments.
Letters are those of the package's legend; what is no letter is read where the line stands. A letter that the
trainer's arguments do not give is any number, the same one throughout a call.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import io
import json
import os
import re
import sys
import tokenize
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

import harness.trainers.native as package
from harness.trainers.native.arguments import parse
from harness.trainers.native.parallel import Layout

PACKAGE = package.__name__
ROOT = Path(str(package.__file__)).parent
_SHAPE = r"\[[^\[\]]*\]"
_COMMENT = re.compile(rf"# (each )?({_SHAPE}(?:(?:, | or ){_SHAPE})*)")
_ARROW = re.compile(rf"``({_SHAPE}) → ({_SHAPE})``")
_NAMED = re.compile(rf"``(\w+) ({_SHAPE})``")
_LEGEND = re.findall(r"^    (\w+(?:, \w+)*)  ", str(package.__doc__), re.MULTILINE)
LETTERS = frozenset(", ".join(_LEGEND).split(", "))

known: dict[str, int] = {}  # letters that the arguments give
divides: dict[str, bool] = {}  # whether they make (/tp) and (/r) divide
held: set[str] = set()  # places whose shapes have been seen to be true


def learn(argv: Sequence[str], world_size: int) -> None:
    """Take the letters from the trainer's arguments."""
    args = parse(argv, world_size)
    layout = Layout.of(args, 0)
    known.update({name: getattr(layout, name) for name in ("tp", "pp", "dp", "ep", "etp", "edp")})
    known.update(s=args.seq_length, b=args.micro_batch_size, h=args.hidden_size, a=args.num_attention_heads)
    known.update(e=args.num_experts, k=args.moe_router_topk, d=known["h"] // known["a"])
    known["t"] = known["s"] * known["b"] // (known["tp"] if args.sequence_parallel else 1)
    unit = args.make_vocab_size_divisible_by * known["tp"]
    known["v"] = -(-args.vocab_size // unit) * unit
    divides.update({"/tp": args.sequence_parallel, "/r": args.use_distributed_optimizer})


# -- a shape and a value -------------------------------------------------------------------------


def hold(where: str, shapes: list[str], value: Any, own: dict[str, int], names: dict[str, Any]) -> None:
    """Assert that one of ``shapes`` is that of ``value``, unless there is none.

    Args:
        own: letters of this call, as far as they are known; more are learned.
        names: what else may stand in a shape.
    """
    if value is not None:
        found = shape_of(value)
        assert any(fits(shape, found, own, names) for shape in shapes), (
            f"{where}: {' or '.join(shapes)}, found {found}; {known | own}"
        )
        held.add(where)


def shape_of(value: Any) -> list[int]:
    if isinstance(value, (list, tuple)):
        return [len(value), *(shape_of(value[0]) if value else [])]
    return list(getattr(value, "shape", ()))


def fits(shape: str, found: list[int], own: dict[str, int], names: dict[str, Any]) -> bool:
    for mark, does in divides.items():
        shape = shape.replace(f"({mark})", mark if does else "")
    dims = [dim.strip() for dim in shape[1:-1].split(",") if dim.strip()]
    if "…" in dims and len(found) >= len(dims) - 1:
        at = dims.index("…")
        dims[at : at + 1] = map(str, found[at : at + 1 + len(found) - len(dims)])
    return len(dims) == len(found) and all(map(functools.partial(equal, own, names), dims, found))


def equal(own: dict[str, int], names: dict[str, Any], dim: str, size: int) -> bool:
    scope = {**names, **known, **own}
    free = (letters(dim) & LETTERS) - known.keys() - own.keys()
    if len(free) > 1:
        return True  # two unknowns in one equation
    for letter in free:
        one, two = (eval(dim, {**scope, letter: number}) for number in (1, 2))
        if not one or not size:
            return size == 0
        scope[letter] = own[letter] = round(size / one if two > one else one / size)
    return bool(eval(dim, scope) == size)


def letters(shape: str) -> set[str]:
    """The words of a shape that are no function's and no attribute's."""
    return set(re.findall(r"(?<![\w.])[a-z]\w*(?![\w(.])", shape))


# -- source with assertions ----------------------------------------------------------------------


class Asserting(ast.NodeTransformer):
    """Puts a call of :func:`hold` behind each line that says a shape, and around functions that do."""

    def __init__(self, module: str, source: str) -> None:
        self.module, self.within = module, ""
        self.places: dict[str, list[str]] = {}
        self.comments = {
            token.start[0]: match
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT and (match := _COMMENT.match(token.string))
        }
        self.tree = self.visit(ast.parse(source))
        assert not self.comments, f"{module}: no value in the lines {sorted(self.comments)}"
        after = next(i for i, node in enumerate(self.tree.body) if isinstance(node, ast.ImportFrom))
        self.tree.body[after + 1 : after + 1] = ast.parse(f"import {__name__} as __shapes__").body
        ast.fix_missing_locations(self.tree)

    def _place(self, name: str | int, shapes: list[str]) -> str:
        self.places.setdefault(where := f"{self.module}:{name}", []).extend(shapes)
        return where

    def _behind(self, node: Any, values: list[str]) -> list[ast.stmt]:
        match = self.comments.pop(node.end_lineno)
        shapes = re.findall(_SHAPE, match[2])
        where = self._place(node.end_lineno, shapes)
        shapes *= len(values) if match[1] else 1
        each = [shapes] if " or " in match[2] else [[one] for one in shapes]
        return [
            ast.parse(f"__shapes__.hold({where!r}, {s!r}, {v}, __own__, {{**globals(), **locals()}})").body[0]
            for s, v in zip(each, values, strict=True)
        ]

    def _assigned(self, node: Any, target: ast.expr) -> Any:
        if node.end_lineno not in self.comments or node.value is None:
            return node
        parts = target.elts if isinstance(target, ast.Tuple) else [target]
        return [node, *self._behind(node, [ast.unparse(part) for part in parts])]

    def visit_Assign(self, node: ast.Assign) -> Any:
        return self._assigned(node, node.targets[0])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        return self._assigned(node, node.target)

    def visit_Return(self, node: ast.Return) -> Any:
        if node.end_lineno not in self.comments:
            return node
        parts = len(node.value.elts) if isinstance(node.value, ast.Tuple) else 0
        values = [f"__result__[{i}]" for i in range(parts)] or ["__result__"]
        made, back = ast.parse("__result__ = 0\nreturn __result__").body
        made.value = node.value  # type: ignore[attr-defined]
        return [made, *self._behind(node, values), back]

    def visit_FunctionDef(self, node: ast.FunctionDef, above: str = "") -> Any:
        own, module, name = ast.get_docstring(node) or "", self.module, self.within + node.name
        if self.module.startswith("comm.") and not own and node.name in PROTOCOL:
            own, module, name = PROTOCOL[node.name], "comm.world", f"Group.{node.name}"
        self.generic_visit(node)
        node.body[:0] = ast.parse("__own__ = {}").body
        arrows, named = _ARROW.findall(above + own), _NAMED.findall(own)
        if arrows or named:
            where = f"{module}:{name}"
            self.places[where] = [*sum(arrows, ()), *(shape for _, shape in named)]
            node.decorator_list.append(_expression(f"__shapes__.said({where!r}, {arrows!r}, {named!r})"))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        fields = {}
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and part.lineno in self.comments:
                shapes = [self.comments.pop(part.lineno)[2]]
                fields[ast.unparse(part.target)] = self._place(part.lineno, shapes), shapes
        if fields:
            node.decorator_list.insert(0, _expression(f"__shapes__.made({fields!r})"))
        self.within = f"{node.name}."
        above = ast.get_docstring(node) or ""
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                self.visit_FunctionDef(part, above if part.name == "forward" else "")
        self.within = ""
        return node


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _protocol() -> dict[str, str]:
    """What the interface says of collectives, which those who answer it do not say again."""
    world = ast.parse((ROOT / "comm" / "world.py").read_text())
    (group,) = (node for node in world.body if isinstance(node, ast.ClassDef) and node.name == "Group")
    return {f.name: ast.get_docstring(f) or "" for f in group.body if isinstance(f, ast.FunctionDef)}


PROTOCOL = _protocol()


def said(where: str, arrows: list[tuple[str, str]], named: list[tuple[str, str]]) -> Callable[..., Any]:
    """Decorates a function with what its docstring says."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            names, own = dict(signature.bind(*args, **kwargs).arguments), dict[str, int]()
            first = next((value for value in names.values() if hasattr(value, "dim")), None)
            for name, shape in named:
                hold(where, [shape], names[name], own, names)
            for shape, _ in arrows:
                hold(where, [shape], first, own, names)
            result = function(*args, **kwargs)
            for _, shape in arrows:
                hold(where, [shape], result, own, names)
            return result

        return checked

    return decorate


def made(fields: dict[str, tuple[str, list[str]]]) -> Callable[[Any], Any]:
    """Decorates a dataclass with what stands beside its fields."""

    def decorate(cls: Any) -> Any:
        original = cls.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            own: dict[str, int] = {}
            for name, (where, shapes) in fields.items():
                hold(where, shapes, getattr(self, name), own, {})

        cls.__init__ = init
        return cls

    return decorate


# -- the trainer with them -----------------------------------------------------------------------


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        source = self.get_data(path).decode()
        return compile(Asserting(fullname.removeprefix(PACKAGE + "."), source).tree, path, "exec")


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name.startswith(PACKAGE + ".") else None
        if spec is None or spec.submodule_search_locations is not None:
            return spec
        return importlib.util.spec_from_file_location(
            name, spec.origin, loader=_Loader(name, str(spec.origin))
        )


def preload() -> None:
    from harness.trainers.native import main

    main.preload()


def run(argv: Sequence[str], rank: int, world_size: int, folder: str, *rest: Any) -> None:
    """Train; ``shapes_<rank>.json`` gets the places whose shapes were seen."""
    for name in [name for name in sys.modules if name.startswith(PACKAGE + ".")]:
        del sys.modules[name]
        vars(package).pop(name.removeprefix(PACKAGE + "."), None)
    sys.meta_path.insert(0, _Finder())
    learn(argv, world_size)
    from harness.trainers.native import main

    main.run(argv, rank, world_size, folder, *rest)
    Path(folder, f"shapes_{rank}.json").write_text(json.dumps(sorted(held)))


def run_over_gloo(*arguments: Any) -> None:
    os.environ["HARNESS_COMM"] = "gloo"
    run(*arguments)
