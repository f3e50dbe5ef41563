"""The user's checkout of Megatron-LM: where it is, and which version."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from harness.errors import UsageError

CHECKOUT = "MEGATRON_LM_PATH"
#: The training scripts of a family, for a case that no recipe of the checkout names: the first that is there.
_SCRIPTS = {
    "bert": ("pretrain_bert.py",),
    "t5": ("pretrain_t5.py",),
    "hybrid": ("pretrain_hybrid.py", "pretrain_mamba.py"),
    "mamba": ("pretrain_mamba.py", "pretrain_hybrid.py"),
    "nemotron": ("pretrain_hybrid.py", "pretrain_mamba.py"),
    "multimodal-llava": ("pretrain_vlm.py",),
    "mimo": ("examples/mimo/train.py",),
}
_SCRIPT = ("pretrain_gpt.py",)


def checkout() -> Path:
    """The user's checkout of Megatron-LM.

    Raises:
        UsageError: none is named, or there is none.
    """
    found, where = os.environ.get(CHECKOUT), CHECKOUT
    if not found:
        found, where = _configured(), "[tool.harness] of pyproject.toml"
    if not found:
        raise UsageError(
            "no checkout of Megatron-LM is named",
            f"set {CHECKOUT}, give --megatron-lm, or megatron-lm in [tool.harness] of pyproject.toml",
        )
    path = Path(found).expanduser().absolute()
    if not path.is_dir():
        raise UsageError(f"{where}: {path} is not there", "name a checkout of Megatron-LM")
    return path


def _configured() -> str | None:
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / "pyproject.toml"
        if not path.is_file():
            continue
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        try:
            named: object = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: {error}") from error
        for key in ("tool", "harness", "megatron-lm"):
            named = named.get(key) if isinstance(named, dict) else None
        if not named:
            return None
        if not isinstance(named, str):
            raise UsageError(f"{path}: [tool.harness]: megatron-lm: found {named!r:.80}, expected a folder")
        return str(folder / named)
    return None


def script_of(root: Path, family: str, named: str | None) -> str:
    """The training script of a case, relative to the checkout ``root``; it need not be there.

    Args:
        root: the checkout.
        family: the case's.
        named: what its recipe says; None without one.

    A script that does not lie where it is said to be is looked for by its name: at the root, then below
    ``examples``, where newer checkouts have those of bert and t5.
    """
    wanted = (named,) if named else _SCRIPTS.get(family, _SCRIPT)
    for script in wanted:
        if (root / script).is_file():
            return script
    for script in wanted:
        name = Path(script).name
        below = [
            path for depth in ("*", "*/*") for path in sorted((root / "examples").glob(f"{depth}/{name}"))
        ]
        below.sort(key=lambda path: family not in path.parts)
        for path in [root / name, *below]:
            if path.is_file():
                return path.relative_to(root).as_posix()
    return wanted[0]


def core_version(root: Path) -> str:
    """Megatron-core's version, read and not imported: importing it needs a GPU's libraries."""
    try:
        text = (root / "megatron" / "core" / "package_info.py").read_text()
    except OSError:
        return "unknown"
    numbers = [re.search(rf"^{name} = (\d+)$", text, re.MULTILINE) for name in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(number[1] for number in numbers if number) or "unknown"
