"""``python -m tests.museum [NAME …]``: real releases with their real resume bugs, each beside a sound one.

Exit 0: every faulty release was caught and named rightly, every sound one is green. Exit 1: not so.
An environment is made by uv for each release, and kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.museum.environments import torch_of_dev
from tests.museum.exhibits import EXHIBITS
from tests.museum.running import Found, visit
from tests.regions import write_region

DOCS = Path(__file__).parents[2] / "docs" / "detection.md"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.museum", description=(__doc__ or "").partition("\n")[0]
    )
    names = [exhibit.name for exhibit in EXHIBITS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of: {', '.join(names)}")
    parser.add_argument("--results", type=Path, default=Path("results/museum"), help="a scratch folder")
    parser.add_argument("--environments", type=Path, default=Path(".nox/museum-environments"))
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {DOCS.name}")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in names:
            parser.error(f"no exhibit {name}; expected one of {', '.join(names)}")
    return options


def markdown(found: Sequence[Found]) -> str:
    """The table, and its totals."""
    lines = [
        "| release | what is lost, or peculiar | where it happened | first wrong step | named | sound one |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        exhibit = one.exhibit
        release = exhibit.faulty or exhibit.sound
        pins = ", ".join(release.pins[:2]) if release else ""
        named = (
            one.component if not one.wrong or one.component in exhibit.components else f"**{one.component}**"
        )
        green = "–" if exhibit.sound is None else "green" if not _of(one, "sound") else "**red**"
        cells = [pins, exhibit.about, exhibit.reference or "–", str(one.first or "–"), named or "–", green]
        lines.append("| " + " | ".join(cells) + " |")
    faulty = [one for one in found if one.exhibit.faulty]
    sound = [one for one in found if one.exhibit.sound]
    lines += ["", (
        f"{sum(one.caught > 0 for one in faulty)} of {len(faulty)} caught, "
        f"{sum(one.component in one.exhibit.components for one in faulty)} named rightly; "
        f"{sum(not _of(one, 'sound') for one in sound)} of {len(sound)} sound ones green."
    )]  # fmt: skip
    return "\n".join(lines)


def _of(found: Found, which: str) -> list[str]:
    return [said for said in found.wrong if said.startswith(which)]


def main(argv: Sequence[str] | None = None) -> int:
    """Visit them, print the table."""
    options = parse(argv)
    found: list[Found] = []
    torch = torch_of_dev()
    for exhibit in EXHIBITS:
        if options.names and exhibit.name not in options.names:
            continue
        folder = options.results.absolute() / exhibit.name
        found.append(visit(exhibit, folder, options.environments.absolute(), torch))
        print(found[-1].line(), *(f"  {said}" for said in found[-1].wrong), sep="\n", flush=True)
    print(f"\n{markdown(found)}")
    if options.write_docs:
        write_region(DOCS, "museum", markdown(found))
    return 1 if any(one.wrong for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
