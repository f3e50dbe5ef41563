"""``python -m tests.megatron_faults [CHECKOUT …]``: plant faults in Megatron-LM's own code; see each caught.

Without a checkout, ``MEGATRON_LM_PATH`` is the one. A checkout is copied, and only the copy is changed.
Exit 0: all caught, and as many named as are asked for. Exit 1: fewer. Exit 2: a clean run fails, or a fault
has no place in the checkout. Exit 3: no checkout is named, or no such one is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.megatron_faults.bank import FAULTS
from tests.megatron_faults.matrix import line, markdown, summary
from tests.megatron_faults.planting import AnchorError
from tests.megatron_faults.running import Outcome, run_all
from tests.regions import write_region

DOCS = Path(__file__).parents[2] / "docs" / "detection.md"
#: In each version one fault may be named wrongly; none may pass.
_MAY_MISS = 1


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.megatron_faults", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("checkouts", nargs="*", type=Path, metavar="CHECKOUT", help="of Megatron-LM")
    keys = [fault.key for fault in FAULTS]
    parser.add_argument(
        "--fault", action="append", choices=keys, metavar="NAME", help="only this; repeatable"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results/megatron_faults"), help="a scratch folder"
    )
    parser.add_argument(
        "--unclean",
        action="store_true",
        help="go on though a clean run fails, and look only at what fails beside",
    )
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {DOCS.name}")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run them, print and write the table."""
    options = parse(argv)
    named = os.environ.get("MEGATRON_LM_PATH")
    checkouts = options.checkouts or ([Path(named)] if named else [])
    if not checkouts:
        print("no checkout of Megatron-LM: give one, or set MEGATRON_LM_PATH", file=sys.stderr)
        return 3
    for checkout in checkouts:
        if not (checkout / "megatron").is_dir():
            print(f"{checkout}: is no checkout of Megatron-LM: it has no folder `megatron`", file=sys.stderr)
            return 3
    faults = [fault for fault in FAULTS if fault.key in (options.fault or [fault.key])]
    folder = options.results.absolute()
    outcomes: list[Outcome] = []
    began = time.monotonic()
    try:
        for checkout in checkouts:
            for found in run_all(folder, checkout.absolute(), faults, unclean=options.unclean):
                if isinstance(found, Outcome):
                    outcomes.append(found)
                print(found if isinstance(found, str) else line(found), flush=True)
    except (RuntimeError, AnchorError) as error:
        print(error, file=sys.stderr)
        return 2
    (folder / "outcomes.json").write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    (folder / "matrix.md").write_text(markdown(outcomes) + "\n")
    print(f"\n{markdown(outcomes)}\n\n{time.monotonic() - began:.0f} s")
    if options.write_docs:
        write_region(DOCS, "megatron_faults", markdown(outcomes))
    wrong = [one for one in outcomes if not one.named]
    for one in wrong:
        print(f"\n{line(one)}", *(f"  {said}" for said in one.evidence), sep="\n")
    missed = [sum(one.version == version for one in wrong) for version in {o.version for o in outcomes}]
    enough = all(one.caught for one in outcomes) and max(missed) <= _MAY_MISS
    print(f"\n{'passed' if enough else 'failed'}: {summary(outcomes)}")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
