"""A page read back by Python's own parser: what is in it, and what it refers to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "link", "br", "input", "col", "img", "hr"}


@dataclass
class Page(HTMLParser):
    """Elements of a page as (tag, attributes), its texts, and the elements that were left open."""

    text: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def said(self) -> str:
        """All that a reader sees, and nothing of scripts and styles."""
        return " ".join(" ".join(text.split()) for tag, text in self.texts if tag not in ("script", "style"))

    def data(self) -> dict[str, Any]:
        """What the page's script reads."""
        found = self.text.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
        read: dict[str, Any] = json.loads(found)
        return read
