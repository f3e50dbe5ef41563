"""``python -m tests.alarms``: many clean verdicts, in all conditions that must not matter; none may fail.

Every case of the fault bank, sound: both formats, saved beside training and not, one and two ranks. Each is
run through the protocols full and fast, alone and beside processes that keep every core busy, in a folder of
its own with a space in its name. Exit 0: no false alarm. Exit 1: one or more. Exit 2: a golden is refused.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.matrix import TRACKS
from tests.alarms.running import NAMES, Clean, markdown, run_all
from tests.faults.running import Bench
from tests.regions import write_region

DOCS = Path(__file__).parents[2] / "docs" / "detection.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run them, print and write the table."""
    torch = importlib.metadata.version("torch").partition("+")[0]
    here = next((name for name, track in TRACKS.items() if track.torch == torch), None)
    parser = argparse.ArgumentParser(
        prog="python -m tests.alarms", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--track", choices=tuple(TRACKS), default=here, required=here is None,
                        help="the one of this environment (found by its torch)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=1, help=f"of {4 * len(NAMES)} verdicts each")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="cells at a time")
    parser.add_argument("--results", type=Path, default=Path("results/alarms"), help="a scratch folder")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {DOCS.name}")
    options = parser.parse_args(argv)
    folder = options.results.absolute()
    for stale in ("goldens", "results"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    began = time.monotonic()
    found: list[Clean] = []
    try:
        for one in run_all(Bench(folder, track=options.track), options.rounds, options.workers):
            if isinstance(one, str):
                print(f"golden: {one}", flush=True)
                continue
            found.append(one)
            said = f"FALSE ALARM: {'; '.join(one.alarms)}" if one.alarms else "passed"
            print(f"[{len(found):2}] {one.case}, {one.protocol}, beside {one.beside}: {said} "
                  f"({one.seconds:.1f} s)", flush=True)  # fmt: skip
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    table = markdown(found, options.track, torch)
    (folder / "alarms.md").write_text(table + "\n")
    (folder / "alarms.json").write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    print(f"\n{table}")
    print(f"\n{time.monotonic() - began:.0f} s, {options.workers} at a time; {folder}/alarms.md, alarms.json")
    if options.write_docs:
        write_region(DOCS, "alarms", table, part=f" {options.track}")
    return 1 if any(one.alarms for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
