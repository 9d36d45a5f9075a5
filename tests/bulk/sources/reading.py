"""What tests of sources do with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from iei.bulk.items import Broken, Encoded, Item, Link, Source, Stored, Text
from iei.bulk.sources import open_source
from iei.errors import StartupError


def opened(*inputs: object, **options: Any) -> Source:
    return open_source([str(written) for written in inputs], **{"modality": None, **options})


def ids(source: Iterable[Item]) -> list[str]:
    return [item.id for item in source]


def until_stopped(source: Iterable[Item]) -> tuple[list[str], str]:
    """The ids that a source yields, and the sentence with which it stops."""
    seen: list[str] = []
    try:
        for item in source:
            seen.append(item.id)
    except StartupError as error:
        return seen, str(error)
    raise AssertionError(f"it did not stop, after {len(seen)} items")


def contents(source: Iterable[Item]) -> list[Any]:
    """What each item is, read if it is stored: bytes, a text, `url:` and an address, or an error's sentence."""
    return [content(item) for item in source]


def content(item: Item) -> Any:
    match item.content:
        case Encoded(data):
            return data
        case Stored(read):
            return read()
        case Link(url):
            return f"url:{url}"
        case Text(text):
            return text
        case Broken(error):
            return f"error:{error}"
