"""Every speed claim, measured in one run: ``python -m benchmarks [NAME …] [--repeats N] [--write-docs]``.

Prints a table (what, ours, theirs, ratio, goal) and writes ``benchmarks/results.json``. A row is made of
several interleaved repeats; medians, with the range of the ratios. A goal that is not met is said, and
ends with status 0: what a noisy machine measures gates nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

#: What is measured, in the order of cost. The state diff has a command and a page of its own.
BENCHMARKS = ("listing", "startup", "goldens", "comm", "sweep", "verdict", "cluster")
RESULTS = Path(__file__).parent / "results.json"
DOCS = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- table -->", "<!-- /table -->"


def meets(ratio: float, goal: str) -> bool:
    """Whether ``ratio`` is what ``goal`` (``<= 1.5``, ``>= 10``) asks for."""
    sign, limit = goal.split()
    return ratio <= float(limit) if sign == "<=" else ratio >= float(limit)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    heads = ("what", "ours", "theirs", "ratio", "goal", "met", "spread of the ratio")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        met = "yes" if meets(row["ratio"], row["goal"]) else "**no**"
        lines.append(
            f"| {row['what']} | {row['ours']:g} | {row['theirs']:g} | {row['ratio']:g} | {row['goal']} "
            f"| {met} | {row['spread']} ({row['repeats']}×) |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--repeats", type=int, help="default: each benchmark's own")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; expected {', '.join(BENCHMARKS)}")
    found: list[dict[str, Any]] = []
    for name in arguments.names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        module = importlib.import_module(f"benchmarks.bench_{name}")
        repeats = {} if arguments.repeats is None else {"repeats": arguments.repeats}
        for row in module.rows(**repeats):
            found.append(row)
            print(f"  {row['what']}: {row['ratio']:g} (goal {row['goal']})", file=sys.stderr, flush=True)
    from harness.machine.hardware import describe_cpu

    about = {
        "machine": describe_cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    text = table(found)
    print(text)
    RESULTS.write_text(json.dumps({**about, "rows": found}, indent=1) + "\n")
    if arguments.write_docs:
        before, _, rest = DOCS.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        said = f"{about['machine']}, {about['cores']} cores, {about['when']}."
        DOCS.write_text(f"{before}{BEGIN}\n{text}\n\n{said}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
