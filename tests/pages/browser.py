"""Chromium, driven by playwright: a page, and everything that it complained about or asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
DESKTOP, PHONE = (1440, 900), (390, 844)


def chromium() -> str | None:
    """The browser on PATH; None without one."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@dataclass
class Opened:
    """A page, and what it did.

    Args:
        page: playwright's.
        complaints: errors and warnings of its console, and exceptions of its scripts.
        requests: addresses that it asked for, other than itself.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser; it is gone when the block ends.

    Raises:
        RuntimeError: there is none on PATH.
    """
    from playwright.sync_api import sync_playwright

    path = chromium()
    if path is None:
        raise RuntimeError(f"none of {', '.join(_NAMES)} is on PATH: install Debian's chromium, or Chrome")
    # Chromium refuses its sandbox to root, which containers run as.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(
    started: Browser, path: Path, *, size: tuple[int, int] = DESKTOP, **options: Any
) -> Iterator[Opened]:
    """The file at ``path`` in a window of ``size``, with the network cut off.

    Args:
        options: of playwright's context, such as ``color_scheme`` or ``java_script_enabled``.
    """
    width, height = size
    context = started.new_context(viewport={"width": width, "height": height}, offline=True, **options)
    try:
        page = context.new_page()
        found = Opened(page)
        page.on("console", lambda message: found.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: found.complaints.append(f"exception: {error}"))
        page.on("dialog", lambda dialog: found.complaints.append(f"dialog: {dialog.message}"))
        own = path.absolute().as_uri()
        page.on(
            "request",
            lambda request: None if request.url in (own, "data:,") else found.requests.append(request.url),
        )
        page.goto(own)
        yield found
    finally:
        context.close()


def scroll_through(page: Page) -> None:
    """Come by everything once: plots are drawn when they are seen."""
    page.evaluate(
        """async () => {
          const root = document.documentElement;
          for (let y = 0; y < root.scrollHeight; y += innerHeight) {
            scrollTo(0, y);
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          }
          scrollTo(0, 0);
        }"""
    )
