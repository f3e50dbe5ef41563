"""What a script tells its framework: by which option, or what is written down, or nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.init.frameworks import FRAMEWORKS, Framework, Place
from harness.init.syntax import assigned, attributes, constant, dotted, last


@dataclass(frozen=True)
class Told:
    """One argument of a framework's call.

    Args:
        place: which.
        line: of the call; 0 where nothing is called so.
        given: it is there at all.
        option: the name that the script reads it from, among its options.
        value: what is written down; None where it is made of something.
        text: the expression.
        made_of: that, and what the names in it were assigned.
    """

    place: Place
    line: int
    given: bool = False
    option: str = ""
    value: object = None
    text: str = ""
    made_of: str = ""


def framework_of(imports: Sequence[str], tree: ast.Module) -> Framework | None:
    """That whose trainer a script uses; of several the first of the table."""
    names = {
        alias.name.rpartition(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    names |= {last(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names |= {last(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases}
    for one in FRAMEWORKS:
        shown = not one.shown_by or any(re.fullmatch(one.shown_by, name) for name in names)
        if shown and set(one.packages) & set(imports):
            return one
    return None


def told(framework: Framework, tree: ast.Module, options: Collection[str]) -> Iterator[Told]:
    """What the script tells the framework, a place at a time.

    Args:
        options: the names that the script's options are read by.
    """
    calls = list(_calls(tree))
    names = assigned(tree)
    for place in framework.places:
        of_it = [call for call in calls if re.fullmatch(place.call, call.name)]
        found = [one for one in (_given(place, call, names, options) for call in of_it) if one is not None]
        # Of several calls the one that reads an option; else the one that says something.
        best = next((one for one in found if one.option), found[0] if found else None)
        yield best or Told(place, of_it[0].line if of_it else 0)


def parsed(framework: Framework, tree: ast.Module) -> int:
    """The line where a parser of the framework's own reads the command line; 0 without one."""
    if not framework.parsers:
        return 0
    lines = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and re.fullmatch(framework.parsers, last(node.func))
    ]
    return min(lines, default=0)


def fields_asked_for(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Fields without a default, and their lines, of the script's dataclasses that become options."""
    given = {
        name.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and last(node.func) in ("HfArgumentParser", "TrlParser")
        for name in ast.walk(node)
        if isinstance(name, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or node.name not in given:
            continue
        for one in node.body:
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and _has_none(one.value):
                yield one.target.id, one.lineno


def _has_none(value: ast.expr | None) -> bool:
    """Whether a dataclass's field has no default."""
    if not isinstance(value, ast.Call) or last(value.func) != "field":
        return value is None
    return not any(one.arg in ("default", "default_factory") for one in value.keywords)


# -- calls -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """A call; ``dict(type="X", …)`` and ``{"type": "X", …}`` are calls of X too."""

    name: str
    line: int
    words: Sequence[ast.expr]
    named: Mapping[str, ast.expr]


def _calls(tree: ast.Module) -> Iterator[_Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            named = {one.arg: one.value for one in node.keywords if one.arg}
            name, words = last(node.func), node.args
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            named = {str(constant(key)): value for key, value in pairs if key is not None}
            name, words = "dict", []
        else:
            continue
        yield _Call(name, node.lineno, words, named)
        kind = constant(named.get("type")) or (dotted(named["type"]) if "type" in named else "")
        if name == "dict" and isinstance(kind, str) and kind:
            yield _Call(kind.rpartition(".")[2], node.lineno, words, named)


def _given(place: Place, call: _Call, names: Mapping[str, ast.expr], options: Collection[str]) -> Told | None:
    node = call.named.get(place.keyword)
    if node is None and place.position is not None and len(call.words) > place.position:
        node = call.words[place.position]
    if node is None:
        return None
    texts = [ast.unparse(node)]
    for _ in range(4):  # a name stands for what it was assigned, and that for more
        option = next((name for name in attributes(node) if name in options), "")
        known = next((name for name in _names(node) if name in names), None)
        if option or known is None:
            break
        node = names[known]
        texts.append(ast.unparse(node))
    return Told(
        place,
        call.line,
        given=True,
        option=option,
        value=constant(node),
        text=texts[0],
        made_of="\n".join(texts),
    )


def _names(node: ast.AST) -> Iterator[str]:
    return (one.id for one in ast.walk(node) if isinstance(one, ast.Name))
