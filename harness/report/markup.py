"""HTML that escapes everything by construction, and the skeleton of a page that needs no network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from harness.text import printable

_VOID = ("meta", "link", "br", "input", "col")
_SHAPES = ("line", "rect", "circle", "path", "polyline", "polygon")  # of SVG


class Markup(str):
    """Text that is HTML already. Only :func:`el` and this package's own assets make it."""

    __slots__ = ()


#: Text, markup, None, or a list, tuple or generator of them; anything else is shown as its text.
Child = Any


def escape(text: object) -> Markup:
    """Untrusted text as HTML; control characters are spelled out."""
    return Markup(html.escape(printable(text)))


def join(*children: Child) -> Markup:
    """Children side by side: text is escaped, markup is kept, None is left out."""
    return Markup("".join(_pieces(children)))


def _pieces(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, (list, tuple, Iterator)):
            yield from _pieces(child)
        elif child is not None:
            yield escape(child)


def el(tag: str, *children: Child, **attributes: object) -> Markup:
    """An element. ``class_`` is ``class``, ``aria_label`` is ``aria-label``; None and False are left out."""
    said = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{said}>")
    if tag in _SHAPES and not children:
        return Markup(f"<{tag}{said}/>")
    return Markup(f"<{tag}{said}>{join(*children)}</{tag}>")


def quoted(text: str) -> Markup:
    """A sentence; what stands between backticks is code."""
    parts = text.split("`")
    return join(el("code", part) if i % 2 and i + 1 < len(parts) else part for i, part in enumerate(parts))


def table(caption: str, head: Iterable[Child], rows: Iterable[Child], *, class_: str = "") -> Markup:
    """A table that scrolls in itself on a narrow screen, reachable by keyboard."""
    inner = el(
        "table",
        el("caption", caption),
        el("thead", el("tr", [el("th", cell, scope="col") for cell in head])),
        el("tbody", rows),
        class_=class_ or None,
        role="table",
    )
    return el("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)


def data_block(name: str, value: Any) -> Markup:  # noqa: ANN401 - anything JSON
    """JSON for a script to read; nothing in it can close the element or start another."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(f'<script type="application/json" id="{escape(name)}">{text}</script>')


@cache
def asset(*path: str) -> str:
    """A file of this package."""
    found = files("harness.report")
    for part in path:
        found = found / part
    return found.read_text(encoding="utf-8")


def page(title: str, body: Child, *, styles: Iterable[str], scripts: Iterable[str]) -> str:
    """A whole page. Its policy lets nothing run but ``scripts`` and forbids every request.

    Args:
        styles, scripts: texts of this package's assets; inlined, and allowed by their hashes.
    """
    styles, scripts = list(styles), list(scripts)
    policy = "; ".join([
        "default-src 'none'",
        f"style-src {_hashes(styles)}",
        f"script-src {_hashes(scripts)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ])  # fmt: skip
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("link", rel="icon", href="data:,"),
        el("title", title),
        [Markup(f"<style>{text}</style>") for text in styles],
    )
    run = [Markup(f"<script>{text}</script>") for text in scripts]
    return "<!doctype html>\n" + el("html", head, el("body", body, run), lang="en") + "\n"


def _hashes(texts: Iterable[str]) -> str:
    sums = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{found}'" for found in sums) or "'none'"
