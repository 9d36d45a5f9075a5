"""Contents of items → the bytes or the text that is embedded: read from files in threads, or downloaded."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from iei.bulk.items import Broken, Encoded, Item, Link, Stored, Text
from iei.errors import IEIError
from iei.inputs.addresses import UrlPolicy
from iei.inputs.fetch import Fetcher
from iei.settings import InputSettings

READS = 32
"""Items that are read at the same time: storage on a network takes long to answer, but answers many at once."""


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
        self._threads = ThreadPoolExecutor(READS, thread_name_prefix="reader")

    async def close(self) -> None:
        """Closes connections. Does not wait for files that are being read."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._opened:
            await self._opened.aclose()

    def _in_thread(self, work: Callable[..., Content], *arguments: Any) -> Awaitable[Content]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

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
                        return await self._in_thread(_content, item, lambda: data)
                case Encoded(data):
                    return await self._in_thread(_content, item, lambda: data)
                case Stored(read):
                    return await self._in_thread(_content, item, read)
        except IEIError as error:
            return Content(item, error=str(error))
        except OSError as error:
            return Content(item, error=f"can't be read: {error.strerror or error}")


def _content(item: Item, read: Callable[[], bytes]) -> Content:
    data = read()
    return Content(item, data, hashlib.sha256(data).hexdigest())
