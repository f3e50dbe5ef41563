"""``python -m tests.faults [NUMBER …]``: plant every fault, and see whether the gate catches and names it.

Exit 0: at least as many caught and named as are asked for. Exit 1: fewer. Exit 2: a clean run fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.bank import FAULTS
from tests.faults.gate import GATE_FAULTS, try_all
from tests.faults.matrix import line, markdown, summary, to_json
from tests.faults.running import Bench, Outcome, run_all
from tests.faults.stops import STOP_FAULTS, StopOutcome, stop_line, stop_summary, stop_table, try_stops
from tests.regions import write_region

DOCS = Path(__file__).parents[2] / "docs" / "detection.md"
#: Two faults may be named wrongly; none may pass.
_MAY_MISS = 2


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "numbers", nargs="*", type=_number, metavar="NUMBER", help="faults to plant (all of them)"
    )
    parser.add_argument("--protocol", choices=("full", "fast"), default="full")
    parser.add_argument("--track", choices=("dev", "lts"), default="dev", help="the one of this environment")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="cells at a time")
    parser.add_argument("--results", type=Path, default=Path("results/faults"), help="a scratch folder")
    parser.add_argument("--write-docs", action="store_true", help=f"put the matrix into {DOCS.name}")
    return parser.parse_args(argv)


def _number(text: str) -> int:
    number = int(text)
    stops = [fault.number for fault in STOP_FAULTS]
    if not (1 <= number <= len(FAULTS) or number in stops):
        said = f"faults have the numbers 1 to {len(FAULTS)} and {stops[0]} to {stops[-1]}"
        raise argparse.ArgumentTypeError(said)
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run them, print and write the matrix."""
    options = parse(argv)
    numbers = dict.fromkeys(options.numbers)
    faults = [FAULTS[n - 1] for n in numbers if n <= len(FAULTS)] if numbers else list(FAULTS)
    at_stops = [fault for fault in STOP_FAULTS if not numbers or fault.number in numbers]
    began = time.monotonic()
    folder = options.results.absolute()
    for stale in ("goldens", "results"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    outcomes: list[Outcome] = []
    stopped: list[StopOutcome] = []
    bench = Bench(folder, options.protocol, options.track)
    try:
        for found in run_all(bench, faults, options.workers) if faults else ():
            if isinstance(found, str):
                print(f"golden of a clean run: {found}", flush=True)
            else:
                outcomes.append(found)
                print(f"[{len(outcomes):2}/{len(faults)}] {line(found)}", flush=True)
        for one in try_stops(bench, at_stops, options.workers) if at_stops else ():
            stopped.append(one)
            print(f"[{len(stopped)}/{len(at_stops)}] {stop_line(one)}", flush=True)
    except RuntimeError as error:
        print(f"{error}\nfaults mean nothing until clean runs pass: python -m tests.alarms", file=sys.stderr)
        return 2
    tables = [markdown(outcomes)] if outcomes else []
    tables += [stop_table(stopped)] if stopped else []
    (folder / "matrix.md").write_text("\n\n".join(tables) + "\n")
    (folder / "matrix.json").write_text(to_json(outcomes))
    print("", *tables, sep="\n\n")
    print(f"\n{time.monotonic() - began:.0f} s, {options.workers} at a time; {folder}/matrix.md, matrix.json")
    if options.write_docs:
        if outcomes:
            write_region(DOCS, "faults", markdown(outcomes))
        if stopped:
            write_region(DOCS, "faults", stop_table(stopped), part=" at other stops")
    wrong = [o for o in outcomes if not o.named]
    for outcome in wrong:
        print(f"\n{line(outcome)}", *(f"  {said}" for said in outcome.evidence), sep="\n")
    enough = all(o.caught for o in outcomes) and len(wrong) <= _MAY_MISS and all(o.right for o in stopped)
    gate = ""
    if not options.numbers:
        print("\nfaults of the gate itself:")
        overlooked = try_all()
        gate = f"; of the gate's own, {len(GATE_FAULTS) - len(overlooked)} of {len(GATE_FAULTS)} seen"
        enough = enough and not overlooked
    said = [
        *([summary(outcomes)] if outcomes else []),
        *([f"of those at other stops {stop_summary(stopped)}"] if stopped else []),
    ]
    print(f"\n{'passed' if enough else 'failed'}: {'; '.join(said)}{gate}")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
