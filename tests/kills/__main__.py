"""``python -m tests.kills native|command [N]``: kills at random moments, a verdict each; none may go wrong.

Each is killed with SIGKILL, all ranks or one, at a moment that its number draws, and resumed from what the
kill has left. Looked at behind each: processes that are left, how long it took until all had ended, whether
a torn save was accepted. For ``command`` scripts with planted faults are killed while they save, too: those
that accept a torn save must be red, and named so. Exit 0: all is as it should be. Exit 1: something is not.
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

from tests.kills.rows import Row, rows
from tests.kills.running import Killed, kill, marked, summary, table
from tests.regions import write_region

DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "kill-a-run.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, print a line each, and the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kills", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("trainer", choices=("native", "command"))
    parser.add_argument("kills", nargs="?", type=int, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {DOCS.name}")
    parser.add_argument("--results", type=Path, default=Path("results/kills"), help="a scratch folder")
    options = parser.parse_args(argv)
    root = options.results.absolute() / options.trainer
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    os.environ.setdefault("HARNESS_LEASES", str(root / "leases"))  # they need not wait for who trains beside
    sound, planted = (rows(options.trainer, planted=bad) for bad in (False, True))
    todo: list[tuple[Row, str]] = [(sound[i % len(sound)], "random") for i in range(options.kills)]
    # Grouped: a warm parent is kept for phases that share its environment.
    todo.sort(key=lambda one: sound.index(one[0]))
    todo += [(row, "saving") for row in planted for _ in range(max(1, options.kills // 20))]
    began = time.monotonic()
    found: list[Killed] = []
    wrong = 0
    from harness.launch.launcher import Launcher

    with marked() as mark, Launcher() as launcher:
        for number, (row, moment) in enumerate(todo):
            one = kill(root, row, options.first_seed + number, launcher, mark, moment)
            found.append(one)
            why = one.wrong(planted=bool(row.planted))
            wrong += bool(why)
            if why:  # what it has left, for whoever looks for the reason
                cell = root / "results" / "cpu" / "dev" / row.name
                shutil.copytree(cell, root / "wrong" / f"{row.name}-{number + 1}", symlinks=True)
            print(f"[{number + 1:3}] {row.name}: {one.said or one.red}{f' WRONG: {why}' if why else ''} "
                  f"({one.seconds:.1f} s)", flush=True)  # fmt: skip
    text = f"{table(found, [*sound, *planted])}\n\n{summary(found[: options.kills], wrong)}"
    (root / "kills.json").write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    print(f"\n{text}\n\n{time.monotonic() - began:.0f} s; {root}/kills.json")
    if options.write_docs:
        write_region(DOCS, "kills", text, part=f" {options.trainer}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
