"""``nox -l --json`` → the matrix of jobs: one per (hardware, track), however many cases there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.matrix import HARDWARE, TRACKS, Cell
from harness.matrix import cells as cells_below
from harness.report.runners import filled

#: GitHub refuses a matrix of more jobs.
MOST_JOBS = 256
#: Where a cpu's cells run, whatever labels the others ask for.
HOSTED = "ubuntu-24.04"
_ALL = "all"
_GPU = "gpu"  # all hardware but cpu, where none is called so
_NAME = re.compile(r"case\(([^()]+)\)")


@dataclass(frozen=True)
class Listed:
    """A session that runs one cell.

    Args:
        cell: which one.
        session: what ``nox -s`` takes.
    """

    cell: Cell
    session: str


def run_nox() -> str:
    """What ``nox -l --json -t lts dev`` prints in the present folder: every cell.

    Without the tags nox lists what it would run by default, which is the cpu's dev track.

    Raises:
        UsageError: nox is not there, or does not understand the noxfile.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "nox", "-l", "--json", "-t", *TRACKS],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(f"nox -l --json: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UsageError(
            f"nox -l --json: exit status {done.returncode}: {said[-1] if said else 'no message'}",
            "install nox beside the harness, or name a file that holds what it prints",
        )
    return done.stdout


def read_listing(text: str, where: str) -> tuple[Listed, ...]:
    """The cells of a listing, in its order; sessions that run no cell are left out.

    Raises:
        UsageError: it is not what ``nox -l --json`` prints.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where}: is not what nox -l --json prints: {error}") from None
    if not isinstance(found, list):
        raise UsageError(f"{where}: found {type(found).__name__}, expected a list of sessions")
    return tuple(listed for item in found if (listed := _listed(item, where)) is not None)


def _listed(item: Any, where: str) -> Listed | None:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(item, dict) or not isinstance(item.get("session"), str):
        raise UsageError(f"{where}: found {item!r}, expected a session")
    match = _NAME.fullmatch(str(item.get("name")))
    parameters = item.get("call_spec")
    if match is None or not isinstance(parameters, dict):
        return None
    try:
        cell = Cell.parse(f"{match[1]}/{parameters.get('track')}/{parameters.get('case')}")
    except HarnessError as error:
        raise UsageError(f"{where}: session {item['session']!r}: {error.message}") from None
    return Listed(cell, item["session"])


def read_listing_file(path: Path) -> tuple[Listed, ...]:
    """The same of a file; ``-`` is standard input; a folder of cases is what nox would list of it.

    Raises:
        UsageError: it cannot be read, or the folder holds no case.
    """
    if path.is_dir():
        listed = tuple(
            Listed(cell, f"case({cell.hardware})({cell.track},{cell.case})") for cell in cells_below(path)
        )
        if not listed:  # or CI that tests nothing would be green
            raise UsageError(f"{path}: lists no cell: expected <family>/<case>/model_config.yaml")
        return listed
    if str(path) == "-":
        return read_listing(sys.stdin.read(), "standard input")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    return read_listing(text, str(path))


def expected_cells(
    listing: Path | None, *, hardware: Sequence[str] = (), tracks: Sequence[str] = ()
) -> tuple[Cell, ...]:
    """The cells that a night should hold; none when nobody says.

    Args:
        listing: what ``nox -l --json`` prints, or the folder of cases; None when it was not said.
        hardware, tracks: as in :func:`select`.

    Raises:
        UsageError: it is said, and it is nothing: then nobody would notice a night without results.
    """
    if listing is None:
        if hardware or tracks:
            raise UsageError("--hardware and --track say what of --expect is expected, which is not given")
        return ()
    cells = tuple(one.cell for one in select(read_listing_file(listing), hardware=hardware, tracks=tracks))
    for kind, names, found in (
        ("hardware", hardware, {cell.hardware for cell in cells}),
        ("track", tracks, {cell.track for cell in cells}),
    ):
        for name in names:
            meant = _meant(name) if kind == "hardware" else (name,)
            if name != _ALL and found.isdisjoint(meant):
                raise UsageError(
                    f"{listing}: lists no cell of {kind} {name}: nothing would be expected of it"
                )
    if not cells:
        raise UsageError(f"{listing}: lists no cell: nothing would be expected")
    return cells


def select(listed: Iterable[Listed], *, hardware: Sequence[str], tracks: Sequence[str]) -> tuple[Listed, ...]:
    """Those of the hardware and tracks that are named; of all when none is, or one is ``all``.

    ``gpu`` is all hardware but cpu.

    Raises:
        UsageError: a name that does not exist, which would quietly select nothing.
    """
    for kind, names, table, words in (
        ("hardware", hardware, HARDWARE, [_GPU, _ALL]),
        ("track", tracks, TRACKS, [_ALL]),
    ):
        for name in names:
            if name not in (*table, *words):
                raise UsageError(f"{kind} {name!r}: expected {', '.join((*table, *words[:-1]))} or {_ALL}")
    some = {one for name in hardware or (_ALL,) for one in _meant(name)}
    those = tracks if tracks and _ALL not in tracks else TRACKS
    return tuple(one for one in listed if one.cell.hardware in some and one.cell.track in those)


def _meant(name: str) -> tuple[str, ...]:
    """The hardware that a word stands for; another word, such as a track's name, for itself."""
    if name == _ALL:
        return tuple(HARDWARE)
    if name == _GPU and _GPU not in HARDWARE:
        return tuple(one for one, row in HARDWARE.items() if row.device_names)
    return (name,)


def jobs(listed: Iterable[Listed], labels: Sequence[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """The matrix as ``strategy.matrix`` takes it; ``{"include": []}`` when there is nothing to run.

    Args:
        listed: what the jobs run between them.
        labels: of a GPU's runner, see :func:`~harness.report.runners.read_template`; each job then says
            what it ``runs-on``.

    Raises:
        UsageError: more jobs than GitHub takes.
    """
    counts = Counter((one.cell.hardware, one.cell.track) for one in listed)
    include: list[dict[str, Any]] = [
        {"hardware": hardware, "track": track, "cells": counts[hardware, track]}
        for hardware in HARDWARE
        for track in TRACKS
        if counts[hardware, track]
    ]
    if len(include) > MOST_JOBS:
        raise UsageError(
            f"{len(include)} jobs, GitHub takes {MOST_JOBS} a matrix", "select with --hardware or --track"
        )
    if labels is not None:
        for job in include:
            names = job["hardware"], job["track"]
            gpu = HARDWARE[job["hardware"]].device_names
            job["runs-on"] = [filled(one, *names) for one in labels] if gpu else [HOSTED]
    return {"include": include}
