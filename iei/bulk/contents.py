"""Contents of items → the bytes or the text that is embedded: read from files in threads, or downloaded."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from iei.bulk.items import Broken, Encoded, Item, Link, Stored, Text
from iei.errors import IEIError
from iei.inputs.addresses import UrlPolicy
from iei.inputs.fetch import Fetcher
from iei.settings import InputSettings


@dataclass(frozen=True, slots=True)
class Content:
    """An item that has been read."""

    item: Item
    data: bytes | str | None = None
    """A picture's file, or a text."""
    sha256: str | None = None
    """Of `data`, in hex."""
    error: str | None = None
    """Why there is no `data`."""

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return len(self.data or "")


class Reader:
    """Reads contents. Made on the event loop that uses it.

    Args:
        settings: which addresses may be downloaded, and how.
    """

    def __init__(self, settings: InputSettings) -> None:
        self._settings = settings
        self._policy = UrlPolicy.parse(settings.url_inputs)
        self._opened: Fetcher | None = None

    async def close(self) -> None:
        """Closes connections."""
        if self._opened:
            await self._opened.aclose()

    @property
    def _fetcher(self) -> Fetcher:
        """Made when it is first needed: reading all certificates takes as long as a batch."""
        if self._opened is None:
            self._opened = Fetcher(self._policy, self._settings.max_image_bytes, self._settings.url_timeout_s)
        return self._opened

    async def read(self, item: Item) -> Content:
        """The content of an item, or why there is none."""
        try:
            match item.content:
                case Broken(error):
                    return Content(item, error=str(error))
                case Text(text):
                    return Content(item, text, hashlib.sha256(text.encode()).hexdigest())
                case Link(url):
                    async with self._fetcher.fetched(url) as data:
                        return await asyncio.to_thread(_content, item, data)
                case Encoded(data):
                    return await asyncio.to_thread(_content, item, data)
                case Stored(read):
                    return await asyncio.to_thread(lambda: _content(item, read()))
        except IEIError as error:
            return Content(item, error=str(error))
        except OSError as error:
            return Content(item, error=f"can't be read: {error.strerror or error}")


def _content(item: Item, data: bytes) -> Content:
    return Content(item, data, hashlib.sha256(data).hexdigest())
