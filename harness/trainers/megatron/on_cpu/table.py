"""The table of what is replaced, and how its rows are put in place."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

#: Modules that hold ``ROWS``, in the order in which they are put in place.
_MODULES = ("tensors", "cuda", "streams", "collectives", "packages")
_installed: list[str] = []


class NoRow(RuntimeError):
    """Something of a GPU was asked for that no row answers."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: the stand-in for a GPU has no row for it; a row is missing in "
            f"harness/trainers/megatron/on_cpu ({', '.join(_MODULES)})"
        )


@dataclass(frozen=True)
class Row:
    """What is replaced, by what, and why.

    Args:
        names: dotted names with blanks between.
        why: the reason.
        make: given what was there (None where nothing was), what is put there; called once a name.
        kind: ``attribute``; ``module``: put among the loaded modules; ``later``: an attribute of a module of
            the checkout, put there when that is imported.
    """

    names: str
    why: str
    make: Callable[[Any], Any]
    kind: Literal["attribute", "module", "later"] = "attribute"

    def each(self) -> Sequence[str]:
        """Its names."""
        return self.names.split()


def answer(value: object) -> Callable[[Any], Any]:
    """Functions that return ``value``, whatever they are given; one of its own for each name."""
    return calls(lambda *_, **__: value)


def calls(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """Functions that call ``function``. One of its own for each name: torch keeps rules by function."""

    def make(_: object) -> Callable[..., Any]:
        def called(*args: Any, **more: Any) -> Any:
            return function(*args, **more)

        return called

    return make


def rows() -> Iterator[Row]:
    """All of them; imports torch."""
    for name in _MODULES:
        yield from import_module(f"{__package__}.{name}").ROWS


def install() -> None:
    """Put every row in place, and say of the rest of ``torch.cuda`` that it has none."""
    if _installed:
        return
    later: dict[str, list[tuple[str, Row]]] = {}
    for row in rows():
        for name in row.each():
            _installed.append(name)
            owner, _, attribute = name.rpartition(".")
            if row.kind == "later":
                later.setdefault(owner, []).append((attribute, row))
            elif row.kind == "module":
                sys.modules[name] = row.make(sys.modules.get(name))
            else:
                put(pkgutil.resolve_name(owner), attribute, row)
    sys.meta_path.insert(0, _Later(later))
    import_module(f"{__package__}.cuda").close(_installed)


def put(owner: Any, attribute: str, row: Row) -> None:
    """Replace one thing."""
    setattr(owner, attribute, row.make(getattr(owner, attribute, None)))


class _Later(importlib.abc.MetaPathFinder):
    """Puts rows into modules of the checkout once they are loaded."""

    def __init__(self, wanted: dict[str, list[tuple[str, Row]]]) -> None:
        self._wanted = wanted

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """That of the others, with our rows behind it."""
        rows = self._wanted.pop(fullname, None)
        if rows is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                for attribute, row in rows:
                    put(module, attribute, row)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
