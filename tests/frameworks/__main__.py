"""``python -m tests.frameworks [NAME …]``: the newest Trainer, accelerate, Lightning, DeepSpeed and mmengine.

Each example of docs/how-to is recorded, then green; with a fault planted in the framework it is red, and the
lost component is named. Exit 0: all is so.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.frameworks.cells import FRAMEWORKS, verdicts


def main(argv: Sequence[str] | None = None) -> int:
    """Run them."""
    names = [framework.name for framework in FRAMEWORKS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.frameworks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of: {', '.join(names)}")
    parser.add_argument("--results", type=Path, default=Path("results/frameworks"), help="a scratch folder")
    options = parser.parse_args(argv)
    if unknown := set(options.names).difference(names):
        parser.error(f"no framework {', '.join(sorted(unknown))}; expected some of {', '.join(names)}")
    wrong = 0
    chosen = [one for one in FRAMEWORKS if one.name in (options.names or names)]
    folder = options.results.absolute()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for processes
        for said in pool.map(lambda one: verdicts(one, folder / one.name), chosen):
            print(*said, sep="\n", flush=True)
            wrong += any(line.startswith("WRONG") for line in said)
    print(f"{'failed' if wrong else 'passed'}: {len(chosen) - wrong} of {len(chosen)} frameworks")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
