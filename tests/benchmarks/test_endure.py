"""The traffic that goes on whatever happens: reliability is judged by it. Here it meets a server that misbehaves."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import cycle

import pytest

from benchmarks.endure import Traffic, answers, growth

ANSWERS = cycle(["200 OK", "503 Service Unavailable", "200 OK", None])
"""What each request gets; None closes the connection instead."""


async def misbehave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):  # the client has gone, as it may
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(line for line in head.splitlines() if line.startswith("Content-Length"))
            await reader.readexactly(int(length.split()[1]))
            if (status := next(ANSWERS)) is None:
                break
            writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n[]".encode())
    writer.close()


def test_traffic_counts_what_fails_and_goes_on() -> None:
    async def scenario() -> Traffic:
        async with await asyncio.start_server(misbehave, "127.0.0.1", 0) as server:
            load = Traffic(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", ["{}"])
            await load.connect(1)
            await asyncio.wait_for(answers(load, 20), 30)
            load.stop()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:  # the server's ends close, too
                await task
            return load

    load = asyncio.run(scenario())
    assert load.statuses[200] >= 20
    assert abs(load.failed - load.statuses[200] / 2) <= 1
    assert abs(len(load.closed) - load.statuses[200] / 2) <= 1
    assert len(load.latencies(0.0)) == load.statuses[200]


def test_a_connection_that_is_dialed_while_the_traffic_stops_is_closed() -> None:
    async def scenario() -> tuple[int, bytes]:
        got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                got.set_result(await reader.read())
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            load = Traffic(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", ["{}"])
            dialing = asyncio.create_task(load.dial())
            await asyncio.sleep(0)  # it has begun
            load.stop()
            await dialing
            return len(load.open), await asyncio.wait_for(got, 10)

    assert asyncio.run(scenario()) == (0, b"")


def test_growth_is_that_of_the_medians() -> None:
    assert growth([100.0] * 50 + [110.0] * 50) == pytest.approx(0.1)
    assert growth([100.0, *[100.0] * 98, 500.0]) == 0.0  # one peak is no growth
