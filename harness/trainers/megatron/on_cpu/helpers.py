"""Megatron-LM's index of samples is C++: built for this Python, outside of the checkout.

Its own ``compile_helpers`` runs ``make`` in the checkout, with whatever ``python3`` and ``python3-config``
are on PATH: those need not be of the Python that runs, and not every checkout can be written to.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

_PACKAGE = "megatron.core.datasets"
_FLAGS = ("-O3", "-Wall", "-shared", "-std=c++17", "-fPIC")  # of its Makefile


def built_outside(_: object) -> Callable[[], None]:
    """In the place of ``compile_helpers``: fill a folder of this user's, by the text of the source.

    The folder comes first where the package looks for its modules, in every rank; one of them fills it.
    """
    package = sys.modules[_PACKAGE]
    source = Path(str(package.__file__)).with_name("helpers.cpp")
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    text = source.read_bytes() if source.is_file() else b""
    digest = hashlib.sha256(b"\0".join([text, suffix.encode(), sys.version.encode()])).hexdigest()[:16]
    folder = _cache() / f"helpers-{digest}"
    target = folder / f"helpers_cpp{suffix}"
    package.__path__.insert(0, str(folder))

    def compile_helpers() -> None:
        if not target.is_file():
            _build(source, target)
        importlib.invalidate_caches()

    return compile_helpers


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resume-harness"


def _build(source: Path, target: Path) -> None:
    try:
        import pybind11
    except ModuleNotFoundError:
        sys.exit(f"harness: {source} wants pybind11: pip install pybind11")
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not compiler:
        sys.exit(f"harness: {source} wants a C++ compiler: install g++, or name one by CXX")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    done = subprocess.run(
        [compiler, *_FLAGS, *includes, str(source), "-o", str(beside)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"harness: {source} cannot be compiled by {compiler}: {done.stderr.strip()[-2000:]}")
    beside.replace(target)
