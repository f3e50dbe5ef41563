"""``python -m tests.experiments [SCRIPT] [FAULT …]``: scripts that know nothing of the harness, and faults.

The golden of a script is recorded, it must then be green, and every fault goes through ``full``. Exit 0: all
are caught, as many named as are asked for, and none wrongly. Exit 1: not. Exit 2: a script is not sound.
Exit 3: nothing has such a name.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.experiments.bank import BY_NAME, FAULTS
from tests.experiments.matrix import from_json, line, markdown, summary, to_json
from tests.experiments.running import Outcome, run_all
from tests.regions import write_region

DOCS = Path(__file__).parents[2] / "docs" / "detection.md"
#: May stay ``unknown``, with the right one among the candidates.
_MAY_MISS = 1


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.experiments", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of scripts or faults (all of them)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="cells at a time")
    parser.add_argument("--results", type=Path, default=Path("results/experiments"), help="a scratch folder")
    parser.add_argument("--keep", action="store_true", help="the checkpoints of faulty runs")
    parser.add_argument(
        "--go-on", action="store_true", help="keep what is in the scratch folder, try the rest"
    )
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {DOCS.name}")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run them, print and write the table."""
    options = parse(argv)
    if options.list:
        print(*(f"{fault.script.name} {fault.name}: {fault.lost}" for fault in FAULTS), sep="\n")
        return 0
    known = [*BY_NAME, *(fault.name for fault in FAULTS)]
    for name in options.names:
        if name not in known:
            print(
                f"{name}: no script and no fault has this name; known are {', '.join(known)}", file=sys.stderr
            )
            return 3
    faults = [
        fault
        for fault in FAULTS
        if not options.names or fault.name in options.names or fault.script.name in options.names
    ]
    folder = options.results.absolute()
    if not options.go_on:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    outcomes = from_json(folder / "matrix.json")
    faults = [fault for fault in faults if fault.name not in {one.fault for one in outcomes}]
    scripts = [one for one in BY_NAME.values() if any(fault.script is one for fault in faults)]
    try:
        for found in run_all(folder, scripts, faults, options.workers, keep=options.keep):
            if isinstance(found, Outcome):
                outcomes.append(found)
                (folder / "matrix.json").write_text(to_json(outcomes))
                print(f"[{len(outcomes):2}] {line(found)}", flush=True)
            else:
                print(found, flush=True)
    except RuntimeError as error:
        print(f"{error}\nfaults mean nothing until the script without one is green", file=sys.stderr)
        return 2
    (folder / "matrix.md").write_text(markdown(outcomes) + "\n")
    print(f"\n{markdown(outcomes)}")
    print(f"\n{time.monotonic() - began:.0f} s, {options.workers} at a time; {folder}/matrix.md, matrix.json")
    if options.write_docs:
        write_region(DOCS, "experiments", markdown(outcomes))
    for outcome in outcomes:
        if outcome.named != "named":
            print(f"\n{line(outcome)}", *(f"  {said}" for said in outcome.evidence), sep="\n")
    missed = [one for one in outcomes if one.named != "named"]
    enough = all(one.named == "candidate" for one in missed) and len(missed) <= _MAY_MISS
    print(f"\n{'passed' if enough else 'failed'}: {summary(outcomes)}")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
