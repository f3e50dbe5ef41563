"""Lines of ours in somebody's source, beside a statement that is found by what it says, not by where it is.

Nothing of that source is kept here but the short anchor: a function's name, and the beginning of one
statement of it. Statements are compared as ``ast.unparse`` writes them, so another formatting is the same
anchor.
"""

from __future__ import annotations

import ast
import compileall
import py_compile
import re
import shutil
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: Printed by what is planted, each time it is reached.
REACHED = "planted fault reached: "
_SKIPPED = shutil.ignore_patterns(".git", "__pycache__", "docs", "examples", "images", "docker")


class AnchorError(Exception):
    """The checkout has no place for a fault."""


@dataclass(frozen=True)
class Edit:
    """Lines at one statement.

    Args:
        file: relative to the checkout.
        function: its dotted name, through classes and functions: ``Optimizer.load_state_dict``.
        anchor: a regular expression that the statement begins with, as ``ast.unparse`` writes it.
        put: where the lines stand.
        lines: ours, dedented; none is ``pass``.
    """

    file: str
    function: str
    anchor: str
    put: Literal["before", "after", "instead"]
    lines: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.function}: {self.anchor}"


def planted(source: str, edit: Edit, key: str) -> str:
    """``source`` with the lines of ``edit`` in it, which say ``key`` when they are reached.

    Raises:
        AnchorError: there is no such statement, or more than one.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise AnchorError(f"{edit.file}: not read as Python: {error}") from error
    within = _function(tree, edit.function.split("."))
    if within is None:
        raise AnchorError(f"{edit}: the file has no such function")
    found = [
        node
        for node in ast.walk(within)
        if isinstance(node, ast.stmt) and node is not within and re.match(edit.anchor, ast.unparse(node))
    ]
    if len(found) != 1:
        raise AnchorError(f"{edit}: {len(found) or 'no'} statements begin so, expected one")
    (node,) = found
    assert node.end_lineno is not None
    lines = source.splitlines(keepends=True)
    start, end = node.lineno - 1, node.end_lineno
    ours = f"print({REACHED + key!r}, flush=True)\n{textwrap.dedent(edit.lines).strip()}\n"
    text = textwrap.indent(ours, " " * node.col_offset)
    cut = {"before": (start, start), "after": (end, end), "instead": (start, end)}[edit.put]
    return "".join([*lines[: cut[0]], text, *lines[cut[1] :]])


def _function(tree: ast.AST, path: Sequence[str]) -> ast.AST | None:
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if named and node.name == path[0]:  # type: ignore[attr-defined]
            return _function(node, path[1:]) if path[1:] else node
    return None


@contextmanager
def fault_in(checkout: Path, edits: Sequence[Edit], key: str) -> Iterator[None]:
    """The edits in a copy of a checkout, taken out again at the end."""
    before: dict[Path, str] = {}
    try:
        for edit in edits:
            path = checkout / edit.file
            try:
                source = path.read_text(encoding="utf-8")
            except OSError as error:
                raise AnchorError(f"{edit}: {error}") from error
            text = planted(source, edit, key)
            before.setdefault(path, source)
            path.write_text(text, encoding="utf-8")
        yield
    finally:
        for path, source in before.items():
            path.write_text(source, encoding="utf-8")


def copy_of(checkout: Path, target: Path) -> Path:
    """A copy of a checkout to plant faults in; the checkout itself is never written to.

    It is compiled once, by what its sources say: a file is changed and changed back within one tick of its
    clock, which nothing that goes by the clock would see.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(checkout, target, ignore=_SKIPPED, symlinks=True)
    by_text = py_compile.PycInvalidationMode.CHECKED_HASH
    with warnings.catch_warnings():  # its warnings are not ours
        warnings.simplefilter("ignore")
        compileall.compile_dir(target / "megatron", quiet=2, invalidation_mode=by_text)
    return target


def reached(folder: Path, key: str) -> bool:
    """Whether what was planted ran in any phase below ``folder``, by the logs of its ranks."""
    said = (REACHED + key).encode()
    return any(said in path.read_bytes() for path in sorted(folder.rglob("*.log")))
