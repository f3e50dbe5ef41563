"""``python -m tests.circumstances``: sound scripts with circumstances in their checkpoints; none may fail.

Each is tried alone first, so that a false alarm is the gate's and not the script's; then its golden is
recorded, and a verdict given by the protocols auto and full. With ``--faults`` each script loses one thing
at a time, which must be red, with the name of what was lost. Exit 0: no false alarm, no loss missed. Exit 1:
one or more. Exit 2: a script or a fault is not what the tables say. Exit 3: nothing has such a name.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from tests.circumstances.bank import FAULTS, SOUND, Fault, Sound
from tests.circumstances.running import PROTOCOLS, Found, run_all

_One = TypeVar("_One", Sound, Fault)


def chosen(table: Sequence[_One], only: Sequence[str], every: int) -> list[_One]:
    """A slice of a table: those whose name has one of ``only`` in it, and of these one in ``every``."""
    return [one for one in table if not only or any(part in one.name for part in only)][::every]


def total(found: Sequence[Found], *, faults: bool) -> str:
    """How many there were, and how many of them were wrong."""
    verdicts = [one for one in found if one.step in PROTOCOLS]
    wrong = sum(bool(one.wrong) for one in verdicts)
    exact = sum(one.lane == "exact" for one in verdicts)
    quick = sum(one.step == "auto" and not one.reference for one in verdicts)
    refused = sum(one.step == "record" and bool(one.wrong) for one in found)
    what, said = ("faulty", "not caught by name") if faults else ("clean", "false alarms")
    return (
        f"{len(verdicts)} {what} verdicts ({exact} compared bit for bit, {quick} without an uninterrupted "
        f"run), {wrong} {said}; {refused} goldens not recorded cleanly; "
        f"{sum(one.unsound for one in found)} scripts that are not what the tables say"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run them, and count."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.circumstances", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--faults", action="store_true", help="lose something in each, one thing at a time")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a part of a name; repeatable"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one in N of them")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="cells at a time")
    parser.add_argument(
        "--results", type=Path, default=Path("results/circumstances"), help="a scratch folder"
    )
    parser.add_argument("--list", action="store_true", help="print the names and end")
    options = parser.parse_args(argv)
    cases = [] if options.faults else chosen(SOUND, options.only, options.every)
    faults = chosen(FAULTS, options.only, options.every) if options.faults else []
    if options.list or not (cases or faults):
        print(*(one.name for one in cases), *(one.name for one in faults), sep="\n")
        return 0 if options.list else 3
    folder = options.results.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    found: list[Found] = []
    for one in run_all(folder, cases, faults, options.workers):
        found.append(one)
        if one.wrong:
            print(f"{one.name}, {one.step} ({one.seconds:.1f} s):", *(f"    {why}" for why in one.wrong),
                  sep="\n", flush=True)  # fmt: skip
        elif one.step != "alone":
            right = "recorded" if one.step == "record" else "caught" if faults else "passed"
            print(f"{one.name}, {one.step}: {right} ({one.seconds:.1f} s)", flush=True)
    (folder / "circumstances.json").write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    print(f"\n{total(found, faults=options.faults)}")
    print(f"{time.monotonic() - began:.0f} s, {options.workers} at a time; {folder}/circumstances.json")
    if any(one.unsound for one in found):
        return 2
    return 1 if any(one.wrong for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
