"""The user's checkout of Megatron-LM: where it is, and which version."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from harness.errors import UsageError

CHECKOUT = "MEGATRON_LM_PATH"


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
            found = tomllib.loads(path.read_text()).get("tool", {}).get("harness", {})
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: {error}") from error
        named = found.get("megatron-lm")
        return str(folder / named) if named else None
    return None


def core_version(root: Path) -> str:
    """Megatron-core's version, read and not imported: importing it needs a GPU's libraries."""
    try:
        text = (root / "megatron" / "core" / "package_info.py").read_text()
    except OSError:
        return "unknown"
    numbers = [re.search(rf"^{name} = (\d+)$", text, re.MULTILINE) for name in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(number[1] for number in numbers if number) or "unknown"
