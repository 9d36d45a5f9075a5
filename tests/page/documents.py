"""What an HTML document has in it."""

from __future__ import annotations

from html.parser import HTMLParser


class Document(HTMLParser):
    """A document: what it loads or leads to, and what it has inline."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.inline: list[str] = []
        """Handlers and styles within attributes, which a strict Content-Security-Policy forbids."""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag}.{name}")
            elif value and ((tag, name) == ("link", "href") or name == "src"):
                self.loaded.append(value)
            elif value and name == "href":
                self.links.append(value)
