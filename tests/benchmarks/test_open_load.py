from __future__ import annotations

import asyncio
import json

import pytest

from benchmarks import open_load
from tests import pictures
from tests.servers import Server

BODY = json.dumps({"inputs": [pictures.base64_of(pictures.png(8, 8))]})


def test_every_request_is_answered_and_timed_from_its_moment(demo_server: Server) -> None:
    moments = [0.0, 0.0, 0.0, 0.1, 0.2]
    result = asyncio.run(open_load.run(demo_server.url, BODY, moments))
    latencies = result["latencies_s"]
    assert isinstance(latencies, list)
    assert len(latencies) == len(moments)
    assert all(latency > 0 for latency in latencies)


def test_a_connection_that_its_server_has_closed_is_passed_over() -> None:
    served: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(BODY))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]")
        await writer.drain()
        served.append(1)
        writer.close()

    async def scenario() -> dict[str, list[float] | float]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            return await open_load.run(f"http://{host}:{port}", BODY, [0.0, 0.0, 0.3, 0.6])

    result = asyncio.run(scenario())
    assert isinstance(result["latencies_s"], list)
    assert len(result["latencies_s"]) == len(served) == 4


def test_an_answer_that_is_no_200_is_an_error(demo_server: Server) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(open_load.run(demo_server.url, '{"inputs": ["no picture"]}', [0.0]))
    assert raised.group_contains(RuntimeError, match="an answer is not 200")
