"""Both clients, called alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from iei.client import AsyncClient, Client


def client(url: str, call: Callable[[Any], Any], **options: Any) -> Any:
    """What `call` returns of a `Client`."""
    with Client(url, **options) as client:
        return call(client)


def async_client(url: str, call: Callable[[Any], Any], **options: Any) -> Any:
    """What `call` returns of an `AsyncClient`."""

    async def awaited() -> Any:
        async with AsyncClient(url, **options) as client:
            return await call(client)

    return asyncio.run(awaited())


BOTH = [client, async_client]
Using = Callable[..., Any]
