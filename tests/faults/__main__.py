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
    if not 1 <= number <= len(FAULTS):
        raise argparse.ArgumentTypeError(f"faults have the numbers 1 to {len(FAULTS)}")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run them, print and write the matrix."""
    options = parse(argv)
    faults = [FAULTS[number - 1] for number in dict.fromkeys(options.numbers)] or list(FAULTS)
    began = time.monotonic()
    folder = options.results.absolute()
    for stale in ("goldens", "results"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    outcomes: list[Outcome] = []
    try:
        for found in run_all(Bench(folder, options.protocol, options.track), faults, options.workers):
            if isinstance(found, str):
                print(f"golden of a clean run: {found}", flush=True)
            else:
                outcomes.append(found)
                print(f"[{len(outcomes):2}/{len(faults)}] {line(found)}", flush=True)
    except RuntimeError as error:
        print(f"{error}\nfaults mean nothing until clean runs pass: python -m tests.alarms", file=sys.stderr)
        return 2
    (folder / "matrix.md").write_text(markdown(outcomes) + "\n")
    (folder / "matrix.json").write_text(to_json(outcomes))
    print(f"\n{markdown(outcomes)}")
    print(f"\n{time.monotonic() - began:.0f} s, {options.workers} at a time; {folder}/matrix.md, matrix.json")
    if options.write_docs:
        write_region(DOCS, "faults", markdown(outcomes))
    wrong = [o for o in outcomes if not o.named]
    for outcome in wrong:
        print(f"\n{line(outcome)}", *(f"  {said}" for said in outcome.evidence), sep="\n")
    enough = all(o.caught for o in outcomes) and len(wrong) <= _MAY_MISS
    gate = ""
    if not options.numbers:
        print("\nfaults of the gate itself:")
        overlooked = try_all()
        gate = f"; of the gate's own, {len(GATE_FAULTS) - len(overlooked)} of {len(GATE_FAULTS)} seen"
        enough = enough and not overlooked
    print(f"\n{'passed' if enough else 'failed'}: {summary(outcomes)}{gate}")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
