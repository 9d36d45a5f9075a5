"""The load of the simulation, in reality: requests at given moments, however long the answers to others take.

    python -m benchmarks.open_load http://127.0.0.1:8000 BODY --rate 50 [--seconds 20] [--seed 0]

BODY is a file with the JSON that is sent to `POST /embed`. The moments are those of `benchmarks.simulation.arrivals`: a
simulation with the same rate and seed has the same ones. Prints a line of JSON: each answer's latency, in the order of
the requests, and the latest that a request was sent after its moment, all in seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from benchmarks.load import content_length, request
from benchmarks.simulation import arrivals

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """Connections that are kept open: a request takes one that is idle, or opens another."""

    def __init__(self, host: str, port: int, data: bytes) -> None:
        self._host, self._port, self._data = host, port, data
        self._all: list[Connection] = []
        self._idle: list[Connection] = []

    async def send(self) -> None:
        """Sends one request and reads its answer.

        Servers close connections that have been idle for some seconds, and an open loop leaves some idle for long. They
        are passed over, as any client does.

        Raises:
            RuntimeError: the answer is not 200.
            IncompleteReadError, ConnectionError: there is none, or it is cut short.
        """
        while self._idle:
            connection = self._idle.pop()
            try:
                return await self._ask(connection)
            except (asyncio.IncompleteReadError, ConnectionError) as error:  # closed, before what was written or after
                if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                    raise
        await self._ask(await self._connect())

    async def _ask(self, connection: Connection) -> None:
        reader, writer = connection
        writer.write(self._data)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(content_length(head))
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"an answer is not 200: {head!r} {body[:200]!r}")
        self._idle.append(connection)

    async def _connect(self) -> Connection:
        self._all.append(connection := await asyncio.open_connection(self._host, self._port))
        return connection

    async def close(self) -> None:
        """Closes all connections."""
        for _, writer in self._all:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in self._all), return_exceptions=True)


async def run(url: str, body: str, moments: Iterable[float], path: str = "/embed") -> dict[str, list[float] | float]:
    """Latencies of requests that are sent at these moments, and the latest that one was sent."""
    address = urlsplit(url)
    data = request(address.netloc, body, path=path)
    client = Client(address.hostname or "127.0.0.1", address.port or 80, data)
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.1
    late = 0.0

    async def timed(moment: float) -> float:
        await client.send()
        return loop.time() - moment

    tasks: list[asyncio.Task[float]] = []
    try:
        async with asyncio.TaskGroup() as group:
            for moment in moments:
                if (wait := begin + moment - loop.time()) > 0:
                    await asyncio.sleep(wait)
                late = max(late, loop.time() - begin - moment)
                tasks.append(group.create_task(timed(begin + moment)))  # being late counts as waiting
    finally:
        await client.close()
    return {"latencies_s": [task.result() for task in tasks], "late_s": late}


def main() -> None:
    """Prints the result as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = arrivals([(arguments.seconds, arguments.rate)], arguments.seed)
    print(json.dumps(uvloop.run(run(arguments.url, arguments.body.read_text(), moments))))


if __name__ == "__main__":
    main()
