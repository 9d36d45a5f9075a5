"""A crowd is refused before its bodies are read, while there is no room for a single input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from iei.engine.api import Result
from iei.engine.inprocess import InProcessEngine
from tests import pictures
from tests.apps import ERROR_FIELDS, app_around
from tests.engine.runtimes_for_tests import KnownRuntime

BODY = {"inputs": [pictures.base64_of(pictures.png(8, 8))]}


class Waiting(InProcessEngine):
    """An engine whose jobs wait until they may run."""

    def __init__(self) -> None:
        super().__init__(KnownRuntime())
        self.may_run = asyncio.Event()

    async def run(self, *arguments: Any, **named: Any) -> Result:
        await self.may_run.wait()
        return await super().run(*arguments, **named)


@pytest.mark.parametrize("path", ERROR_FIELDS)
def test_what_has_no_room_is_answered_without_its_body(path: str) -> None:
    async def scenario() -> None:
        engine = Waiting()
        app = app_around(engine, max_queue=1)
        async with app.router.lifespan_context(app), client_of(app) as client:
            accepted = asyncio.create_task(client.post("/embed", json=BODY))
            while (refused := await client.post(path, content=never_read())).status_code != 429:
                assert refused.status_code in (400, 422)  # the accepted request has not come so far
                await asyncio.sleep(0)
            assert refused.json().keys() == ERROR_FIELDS[path]
            assert refused.headers["retry-after"] == "1"
            bulk = await client.post("/embed", json={}, headers={"x-iei-priority": "bulk"})
            assert bulk.status_code == 422  # which has places of its own, and is read
            assert (await client.get("/health")).status_code == 200
            engine.may_run.set()
            assert (await accepted).status_code == 200
            assert (await client.post("/embed", json=BODY)).status_code == 200

    asyncio.run(scenario())


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def never_read() -> AsyncIterator[bytes]:
    """A body that is no JSON: read, it would be refused for that."""
    yield b"{"
