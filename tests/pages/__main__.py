"""``python -m tests.pages``: pictures of all pages into ``build/pages/``, to be looked at.

Fails where a page complains, asks the network, or is wider than its window.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.pages.browser import DESKTOP, PHONE, browser, opened, scroll_through
from tests.pages.gallery import make

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_OUT = Path("build/pages")
_LOOKS = (
    ("desktop", DESKTOP, "light", "screen"),
    ("phone", PHONE, "light", "screen"),
    ("dark", DESKTOP, "dark", "screen"),
    ("phone-dark", PHONE, "dark", "screen"),
    ("print", (794, 1123), "light", "print"),
)


def main() -> int:
    """Make pages and pictures; returns how many pages were wrong, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.pages", description=__doc__)
    parser.add_argument("pages", metavar="PAGE", type=Path, nargs="*", help="these instead of made-up ones")
    chosen = parser.parse_args().pages
    shutil.rmtree(_OUT, ignore_errors=True)
    _OUT.mkdir(parents=True)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        pages = {f"{path.parent.name}-{path.stem}": path for path in chosen} or make(Path(folder)).pages
        try:
            with browser() as started:
                for name, path in pages.items():
                    wrong += _picture(started, name, path)
        except RuntimeError as error:
            print(f"pages: {error}", file=sys.stderr)
            return 1
    for problem in wrong:
        print(f"pages: {problem}", file=sys.stderr)
    return 1 if wrong else 0


def _picture(started: Browser, name: str, path: Path) -> list[str]:
    wrong = []
    for look, size, scheme, media in _LOOKS:
        with opened(started, path, size=size, color_scheme=scheme) as found:
            scroll_through(found.page)
            found.page.emulate_media(media=media)  # type: ignore[arg-type]  # a literal, which the loop hides
            picture = _OUT / f"{name}-{look}.png"
            found.page.screenshot(path=picture, full_page=True)
            wide = found.page.evaluate("document.documentElement.scrollWidth")
            if wide > size[0]:
                wrong.append(f"{name}, {look}: {wide} pixels wide in a window of {size[0]}")
            wrong += [f"{name}, {look}: {text}" for text in (*found.complaints, *found.requests)]
            print(picture)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
