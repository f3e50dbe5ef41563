"""Whether a script is what the tables say, found out without the harness.

So that a false alarm is the harness's and not the script's: it is run without a break, again without one,
and interrupted and resumed; then all that it has logged and saved is compared, but for its declared
circumstances.
"""

from __future__ import annotations

import argparse
import csv
import enum
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.circumstances.bank import MAY_COINCIDE, SCRIPT, Fault, K, N, Sound

_STAMP = re.compile(r"\d{8}T\d{12}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d[ T][\d:.]+")


def launch(sound: Sound, folder: Path, *, stop: int, load: Path | None = None, lose: str = "") -> None:
    """One run of the script, as a shell would start it."""
    save, out = folder / "save", folder / "out"
    for path in (save, out):
        path.mkdir(parents=True, exist_ok=True)
    words = sound.words(str(save), str(out), stop=str(stop))
    words += [] if "--stop" in words else ["--stop", str(stop)]  # in the place of a pre-emption
    words += ["--load", str(load)] if load else []
    if "--linger" in words:
        words[words.index("--linger") + 1] = "0"
    clock = folder.parent / "clock"
    environment = {**os.environ, "LOSE": lose, "CLOCK": str(clock)}
    subprocess.run([sys.executable, SCRIPT, *words], check=True, env=environment, timeout=60)


def differences(sound: Sound, folder: Path, lose: str = "") -> tuple[set[str], set[str], bool]:
    """Run it in ``folder``.

    Returns:
        The names that differ between the uninterrupted run and the resumed one; those that differ between two
        uninterrupted runs; and whether the curves are equal.
    """
    once, again, parts, resumed = (folder / name for name in ("once", "again", "interrupted", "resumed"))
    launch(sound, once, stop=N)
    launch(sound, again, stop=N)
    launch(sound, parts, stop=K)
    load = resumed if sound.ending == "goes_on" else parts
    if load == resumed:
        shutil.copytree(parts / "save", resumed / "save")
    launch(sound, resumed, stop=N, load=load / "save", lose=lose)
    held = {path: state(path / "save", N, dates=not lose) for path in (once, again, resumed)}
    curve = (once / "out" / "metrics.jsonl").read_text()
    joined = "".join((path / "out" / "metrics.jsonl").read_text() for path in (parts, resumed))
    others = (again / "out" / "metrics.jsonl").read_text()
    return unlike(held[once], held[resumed]), unlike(held[once], held[again]), curve == joined == others


def unlike(one: Mapping[str, object], other: Mapping[str, object]) -> set[str]:
    """The names whose values differ, or that only one has."""
    missing = object()
    return {name for name in one.keys() | other.keys() if one.get(name, missing) != other.get(name, missing)}


def state(folder: Path, step: int, *, dates: bool = True) -> dict[str, object]:
    """All that the checkpoint of ``step`` holds, by file and name; folders of runs are ``<run>``.

    Args:
        dates: those within texts and names of files too.
    """
    found: dict[str, object] = {}
    for where, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(where, name)
            place = path.relative_to(folder).as_posix()
            undated = _STAMP.sub("<stamp>", place)
            if re.search(r"\d", undated) and not re.search(rf"(?<!\d)0*{step}(?!\d)", undated):
                continue  # of another step
            place = undated if name.startswith("step_") or not dates else place
            for key, value in flat("", parse(path), folder.parents[1]):
                masked = isinstance(value, str) and not dates
                found[f"{place}:{key}"] = _DATE.sub("<date>", str(value)) if masked else value
    assert found, folder
    return found


def parse(path: Path) -> Any:
    """A file's content, by its suffix; our own pickles, so they may be loaded."""
    suffix = path.suffix
    if suffix == ".pkl":
        return _Unpickler(io.BytesIO(path.read_bytes())).load()
    if suffix in (".pt", ".ckpt"):
        import torch

        sys.modules["__main__"].Position = _position()  # type: ignore[attr-defined]
        return torch.load(path, weights_only=False)
    if suffix == ".bin":
        return path.read_bytes()
    text = path.read_text()
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".csv":
        head, *rows = csv.reader(io.StringIO(text))
        return [dict(zip(head, row, strict=True)) for row in rows]
    lines = text.splitlines()
    if suffix in (".yaml", ".toml"):
        return dict(re.split(r": | = ", line, maxsplit=1) for line in lines)
    return lines


def _position() -> type:
    from tests.circumstances.script import Position

    return Position


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _position() if name == "Position" else super().find_class(module, name)


def flat(name: str, value: Any, root: Path) -> Iterator[tuple[str, object]]:
    """Names and plain values of a nest; ``root`` is above the folders of all runs."""

    def neutral(text: str) -> str:
        return re.sub(re.escape(str(root)) + r"/\w+", "<run>", text)

    inside: Iterable[tuple[object, Any]]
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, set):
        inside = enumerate(sorted(value))
    elif hasattr(value, "tolist"):
        inside = [*vars(value).items(), ("values", value.tolist())]
    elif isinstance(value, (list, tuple)) or type(value).__name__ == "deque":
        inside = enumerate(value)
    elif isinstance(value, argparse.Namespace) or type(value).__name__ == "Position":
        inside = vars(value).items()
    else:
        assert not isinstance(value, enum.Enum)
        yield name, neutral(str(value)) if isinstance(value, (str, Path)) else value
        return
    for key, held in inside:
        yield from flat(f"{name}.{neutral(str(key))}", held, root)


def unsound(sound: Sound, folder: Path) -> str:
    """Why the script is not what the table says; empty when it is."""
    lost, moved, curves = differences(sound, folder)
    undeclared = {name for name in lost | moved if not declared(sound, name)}
    if not curves:
        return f"{sound.name}: the curves differ"
    if undeclared:
        return f"{sound.name}: what is no circumstance differs: {', '.join(sorted(undeclared)[:5])}"
    if not lost and sound.kind not in MAY_COINCIDE:
        return f"{sound.name}: nothing differs, so that nothing is tried"
    return ""


def harmless(fault: Fault, folder: Path) -> str:
    """Why the fault is not what the table says; empty when it loses what it says, and nothing else."""
    lost, _, curves = differences(fault.case, folder, fault.lose)
    own = {name for name in lost if not declared(fault.case, name, files=False)}
    if not curves:
        return f"{fault.name}: it shows in the curves"
    others = {name for name in own if fault.shown not in name}
    if others or not own:
        found = ", ".join(sorted(own)[:5]) or "nothing"
        return f"{fault.name}: expected {fault.shown} to differ, found: {found}"
    return ""


def declared(sound: Sound, name: str, *, files: bool = True) -> bool:
    """Whether a name is a circumstance's.

    Args:
        files: also where only a part of what the file holds is one.
    """
    parts = re.split(r"[.:/]", name)
    of_files = [word for word in sound.circumstances if "." in word or "-" in word]
    return any(word in parts for word in sound.circumstances) or (files and any(w in name for w in of_files))
