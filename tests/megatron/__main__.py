"""``python -m tests.megatron [WORD …]``: a checkout of Megatron-LM on CPUs; small cases recorded, then green.

``MEGATRON_LM_PATH`` names the checkout. A WORD is a part of a configuration's name; all, without one. Exit 0:
each is as the table expects. Exit 1: one or more are not. Exit 3: no checkout is named, or no such one is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.megatron.configs import CONFIGS, chosen
from tests.megatron.running import Found, try_all_steps


def main(argv: Sequence[str] | None = None) -> int:
    """Run them, a line each, and a summary."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.megatron", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="parts of names; default: all")
    parser.add_argument("--results", type=Path, default=Path("results/megatron"), help="a scratch folder")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument(
        "--faults", action="store_true", help="plant faults in its code instead; the rest goes there"
    )
    options, others = parser.parse_known_args(argv)
    if options.faults:
        from tests.megatron_faults.__main__ import main as plant

        words = [*(sys.argv[1:] if argv is None else argv)]
        words.remove("--faults")
        return plant(words)
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    configs = chosen(options.words)
    if options.list or not configs:
        print(*(f"{one.name}: {one.about}" for one in configs or CONFIGS), sep="\n")
        return 0 if options.list else 3
    if not os.environ.get("MEGATRON_LM_PATH"):
        print("MEGATRON_LM_PATH names no checkout of Megatron-LM", file=sys.stderr)
        return 3
    from harness.launch.launcher import Launcher
    from harness.machine.environment import version_of
    from harness.machine.provenance import commit
    from harness.trainers.megatron.checkout import checkout, core_version

    root, core = checkout(), core_version(checkout())
    about = {
        "megatron_core": core,
        "commit": commit(root),
        "python": platform.python_version(),
        "torch": version_of("torch"),
    }
    print(
        f"{root}: megatron-core {core}, {about['commit']}; Python {about['python']}, torch {about['torch']}"
    )
    folder = options.results.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    found: list[Found] = []
    with Launcher() as launcher:
        for config in configs:
            for one in try_all_steps(folder, config, core, launcher):
                found.append(one)
                print(one.line(), *(f"    {why}" for why in one.wrong), sep="\n", flush=True)
    wrong = {one.name for one in found if one.wrong}
    seconds = time.monotonic() - began
    summary = {**about, "seconds": round(seconds, 1), "found": [asdict(one) for one in found]}
    (folder / "megatron.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(
        f"\n{len(configs) - len(wrong)} of {len(configs)} as expected, {seconds:.0f} s; "
        f"{folder}/megatron.json"
    )
    for name in sorted(wrong):
        print(f"  not as expected: {name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
