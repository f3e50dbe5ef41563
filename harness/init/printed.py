"""The lines of a script that print a step and a loss."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.init.syntax import constant, dotted
from harness.metrics.stdout import suggest


@dataclass(frozen=True)
class Printed:
    """A print of the loss.

    Args:
        expression: a regular expression that finds step and values in the line.
        line: where.
        of_epoch: its step is the number of an epoch.
    """

    expression: str
    line: int
    of_epoch: bool = False


def printed(calls: Sequence[ast.Call]) -> Iterator[Printed]:
    """Lines that hold a step and a loss, as regular expressions; of print and of loggers."""
    for call in calls:
        if dotted(call.func).rpartition(".")[2] not in ("print", "info", "write", "log"):
            continue
        # As it may look: what is put in is a number, a whole one where it may be the step.
        words = ["".join(p if isinstance(p, str) else "7" for p in _pieces(one)) for one in call.args]
        expression = suggest([" ".join(words)], epochs=True)
        if expression is not None:
            of_epoch = suggest([" ".join(words)]) is None
            yield Printed(expression, call.lineno, of_epoch)


def _pieces(node: ast.expr) -> Iterator[str | ast.expr]:
    """The texts of a line and what stands between them: f-strings, ``%`` and ``format``."""
    values: Sequence[ast.expr] = ()
    text: object = None
    if isinstance(node, ast.JoinedStr):
        for part in node.values:
            yield str(part.value) if isinstance(part, ast.Constant) else getattr(part, "value", part)
        return
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        text = constant(node.left)
        values = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        text, values = constant(node.func.value), node.args
    if not isinstance(text, str):
        value = constant(node)
        yield value if isinstance(value, str) else node
        return
    literals = re.split(r"%[-+ 0-9.]*[a-zA-Z]|\{[^{}]*\}", text)
    for literal, value in zip(literals, (*values, None), strict=False):
        yield literal
        if value is not None:
            yield value
