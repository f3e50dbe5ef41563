"""Which versions of which frameworks a script trains with, as far as its own text says."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from harness.machine.environment import version_of
from harness.trainers.command.remarks import module, script

#: Modules whose version changes what is trained or saved, and the distributions that are at work with them.
_FRAMEWORKS: Final[dict[str, tuple[str, ...]]] = {
    "accelerate": ("accelerate",),
    "bitsandbytes": ("bitsandbytes",),
    "composer": ("mosaicml", "torchmetrics"),
    "datasets": ("datasets",),
    "deepspeed": ("deepspeed",),
    "diffusers": ("diffusers", "accelerate"),
    "flax": ("flax", "jax", "jaxlib"),
    "jax": ("jax", "jaxlib"),
    "keras": ("keras", "tensorflow", "jax"),
    "lightning": ("lightning", "torchmetrics"),
    "mmengine": ("mmengine",),
    "nemo": ("nemo_toolkit", "lightning"),
    "optax": ("optax",),
    "orbax": ("orbax-checkpoint",),
    "peft": ("peft", "transformers", "accelerate"),
    "pytorch_lightning": ("pytorch-lightning", "torchmetrics"),
    "safetensors": ("safetensors",),
    "sentence_transformers": ("sentence-transformers", "transformers", "accelerate"),
    "streaming": ("mosaicml-streaming",),
    "tensorflow": ("tensorflow", "keras"),
    "timm": ("timm",),
    "torchdata": ("torchdata",),
    "torchtitan": ("torchtitan",),
    "transformers": ("transformers", "accelerate", "tokenizers"),
    "trl": ("trl", "transformers", "accelerate"),
    "unsloth": ("unsloth", "transformers", "trl", "accelerate"),
}
#: A script's own modules that are read, and how much of each, in bytes.
_FILES, _BYTES = 64, 2_000_000


def libraries(words: Sequence[str], folder: Path) -> dict[str, str]:
    """The versions of the frameworks that a command's script imports: name of a distribution → version.

    The script and the modules beside it are parsed, and nothing is executed. What cannot be told (another
    language, a module that is found nowhere) is left out.

    Args:
        words: the command.
        folder: where it starts.
    """
    started, named = script(words), module(words)
    found = {named.partition(".")[0]} if named else set()
    if started and started.endswith(".py"):
        found |= _imported(folder / started)
    names = {name for one in found for name in _FRAMEWORKS.get(one, ())}
    versions = {name.lower().replace("-", "_"): version_of(name) for name in sorted(names)}
    return {name: version for name, version in versions.items() if version != "none"}


def _imported(path: Path) -> set[str]:
    """The top-level modules that a script and its own modules import."""
    found: set[str] = set()
    todo = [path]
    seen: set[Path] = set()
    while todo and len(seen) < _FILES:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        for name in _names(file):
            top = name.partition(".")[0]
            own = path.parent / top
            if own.with_suffix(".py").is_file():
                todo.append(own.with_suffix(".py"))
            elif (own / "__init__.py").is_file():
                todo += sorted(own.rglob("*.py"))
            else:
                found.add(top)
    return found


def _names(file: Path) -> Iterator[str]:
    try:
        if file.stat().st_size > _BYTES:
            return
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # whoever starts it will say so
    yield from imported(tree)


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a text imports, at any depth (``torch.optim``); those beside it (``.a``) left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
