"""Megatron-LM's recipes: which case runs where, on how many GPUs, with which script.

A case's ``model_config.yaml`` does not say any of that; the checkout's
``tests/test_utils/recipes`` do. Only these facts are taken from them, and nothing is executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import CaseError

FOLDER = Path("tests", "test_utils", "recipes")
_SCRIPT = re.compile(r"""["']?TRAINING_SCRIPT_PATH=([^"'\s]+)""")
_SIZE_LIMIT = 4 << 20


@dataclass(frozen=True)
class Product:
    """One line of a recipe.

    Args:
        case, track, platform: what is run where; ``platform`` as goldens spell it.
        nodes, gpus: how many, and GPUs on each.
        script: the training script, relative to the checkout; None when the recipe runs another.
        recipe: the recipe's path below its folder.
    """

    case: str
    track: str
    platform: str
    nodes: int
    gpus: int
    script: str | None
    recipe: str


@dataclass(frozen=True)
class Recipes:
    """All products of a checkout, and the recipes that could not be read.

    Args:
        products: in the order of their files.
        problems: (recipe, sentence).
    """

    products: tuple[Product, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()

    def of(self, case: str, track: str | None = None, platform: str | None = None) -> list[Product]:
        """The products of a case, on one track and platform where those are given."""
        return [
            product
            for product in self.products
            if product.case == case
            and track in (None, product.track)
            and platform in (None, product.platform)
        ]


def find(path: Path) -> Path | None:
    """The checkout that ``path`` is in or is: the folder above its recipes."""
    path = path.absolute()
    for folder in (path, *path.parents):
        if (folder / FOLDER).is_dir():
            return folder
    return None


def read(checkout: Path, case: str = "") -> Recipes:
    """Read the recipes of a checkout that name ``case`` (all, without one); none when it has none."""
    products: list[Product] = []
    problems: list[tuple[str, str]] = []
    root = checkout / FOLDER
    for file in sorted(root.rglob("*.yaml")):
        name = file.relative_to(root).as_posix()
        try:
            products += _products(name, _load(file, case))
        except CaseError as error:
            problems.append((name, error.message))
    return Recipes(tuple(products), tuple(problems))


def _load(file: Path, case: str) -> dict[str, Any]:
    import yaml

    # libyaml is several times faster, and a checkout has a hundred recipes.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if file.stat().st_size > _SIZE_LIMIT:
            raise CaseError(f"{file}: larger than {_SIZE_LIMIT >> 20} MiB, which is not read")
        text = file.read_text(encoding="utf-8")
        found = yaml.load(text, Loader=loader) if case in text else {}  # noqa: S506 - a safe one
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise CaseError(f"{file}: cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


def _products(recipe: str, found: dict[str, Any]) -> Iterator[Product]:
    spec = found.get("spec")
    if not isinstance(spec, dict):
        return
    text = spec.get("script")
    script = _SCRIPT.search(text) if isinstance(text, str) else None
    for entry in _dicts(found.get("products")):
        for product in _dicts(entry.get("products")):
            said = {**spec, **entry, **product}
            for case in _texts(said.get("test_case")):
                for track in _texts(said.get("environment")):
                    for platform in _texts(said.get("platforms")):
                        yield Product(
                            case, track, platform,
                            _number(said.get("nodes"), 1), _number(said.get("gpus"), 8),
                            script[1] if script else None, recipe,
                        )  # fmt: skip


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str)]


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) and value > 0 else default
