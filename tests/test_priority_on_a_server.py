"""Priorities on a real server: what only shows where there are a worker, an engine and queues in between."""

from __future__ import annotations

import asyncio

import httpx
import psutil

from tests import pictures
from tests.servers import Server
from tests.telemetry.test_metrics_on_a_server import until as scraped

PHOTO = pictures.base64_of(pictures.png(64, 64))
REQUESTS, PICTURES = 8, 8


def engine_of(server: Server) -> psutil.Process:
    (engine,) = server.running("iei.engine.process")
    return engine


def test_one_picture_is_answered_before_the_bulk_that_came_before_it(demo_server: Server) -> None:
    """The engine is stopped while they arrive: what counts is the order in the queues, and not who is fast."""

    async def scenario() -> None:
        order: list[str] = []
        arrived = asyncio.Semaphore(0)

        async def trace(event: str, _: object) -> None:
            if event == "http11.send_request_body.complete":
                arrived.release()

        async with httpx.AsyncClient(base_url=demo_server.url, timeout=120) as client:

            async def embed(priority: str, count: int) -> None:
                request = client.build_request(
                    "POST",
                    "/embed",
                    json={"inputs": [PHOTO] * count},
                    headers={"X-IEI-Priority": priority},
                    extensions={"trace": trace},
                )
                response = await client.send(request)
                assert response.status_code == 200, response.text
                order.append(priority)

            async def arrive(priority: str, count: int, requests: int) -> list[asyncio.Task[None]]:
                tasks = [asyncio.create_task(embed(priority, count)) for _ in range(requests)]
                for _ in tasks:
                    await arrived.acquire()
                await client.get("/ping")  # by its answer, a worker has read what came before
                return tasks

            engine = engine_of(demo_server)
            await asyncio.to_thread(scraped, demo_server.url, "iei_inputs_running", 0)
            engine.suspend()
            try:
                tasks = await arrive("bulk", PICTURES, REQUESTS)
                tasks += await arrive("interactive", 1, 1)
                await asyncio.to_thread(scraped, demo_server.url, "iei_inputs_waiting", REQUESTS * PICTURES + 1)
            finally:
                engine.resume()
            await asyncio.gather(*tasks)
        # It is in the first batch. The first requests of bulk may be read earlier, one batch of eight each.
        assert order.index("interactive") <= 2, order

    asyncio.run(scenario())
