"""What 1,000 slow connections cost 16 normal clients, and how long they last.

    uv run python -m benchmarks.slow_lines [--quick]

One server; rounds of 16 normal clients alone and with slow connections besides, interleaved. Slow connections are of
five kinds in equal parts, and each is opened anew as soon as the server has cut it off, so that there are 1,000 all the
time. Prints medians of rates and of their ratio within a round; then, without normal clients, what the slow ones cost,
and for each kind how long connections lasted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from benchmarks import machine
from benchmarks.report import table
from benchmarks.workload import bodies
from tests.servers import ROOT, Server, serve

TCP_ESTABLISHED = 1
"""The first byte of Linux's struct tcp_info."""
LONGEST_S = 90
"""More than every limit of a server: how long do connections last?"""
PIECE_S = 1.0
"""How often a slow client sends its next byte."""


@dataclass(frozen=True)
class Kind:
    """A way to be slow."""

    begins_with: bytes
    goes_on_with: bytes = b""
    """Sent every `PIECE_S`."""
    reads: bool = True


def kinds() -> Mapping[str, Kind]:
    """All ways, by name."""
    return {
        "head never": Kind(b""),
        "head byte by byte": Kind(b"GET /ping HTTP/1.1\r\nX-Slow: ", b"a"),
        "body byte by byte": Kind(b"POST /embed HTTP/1.1\r\nHost: iei\r\nContent-Length: 100000\r\n\r\n", b" "),
        # An error that repeats the path: a large answer that costs no inference.
        "answer never read": Kind(b"GET /%s HTTP/1.1\r\nHost: iei\r\n\r\n" % (b"a" * 60_000), reads=False),
        "idle": Kind(b"GET /ping HTTP/1.1\r\nHost: iei\r\n\r\n"),
    }


class SlowClient(asyncio.Protocol):
    """One slow connection."""

    def __init__(self, kind: Kind, ended: Callable[[float], None]) -> None:
        self._kind, self._ended = kind, ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the beginning, and then one piece after the other."""
        self._transport = cast(asyncio.Transport, transport)
        self._began = time.monotonic()
        self._transport.write(self._kind.begins_with)
        if not self._kind.reads:
            asyncio.get_running_loop().call_soon(self._transport.pause_reading)  # uvloop starts to read after this
        self._go_on()

    def _go_on(self) -> None:
        sock = self._transport.get_extra_info("socket")
        if self._transport.is_closing():
            return
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO) != TCP_ESTABLISHED:
            self._transport.abort()  # an event loop does not see the end of what it does not read
        else:
            self._transport.write(self._kind.goes_on_with)
            asyncio.get_running_loop().call_later(PIECE_S, self._go_on)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server has cut it off."""
        self._ended(time.monotonic() - self._began)


async def connected(kind: Kind, host: str, port: int) -> socket.socket:
    """A connection. If it is not to be read, the client's kernel takes next to nothing ahead, either."""
    sock = socket.socket()
    sock.setblocking(False)
    if not kind.reads:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(sock, (host, port))
    return sock


def hold(host: str, port: int, count: int, control: Connection) -> None:
    """Keeps `count` slow connections open until told to end; sends how long each kind lasted. A process of its own."""
    uvloop.run(_hold(host, port, count, control))


async def _hold(host: str, port: int, count: int, control: Connection) -> None:
    lasted: dict[str, list[float]] = {name: [] for name in kinds()}
    is_over = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def keep(name: str, kind: Kind) -> None:
        while not is_over.is_set():
            ended: asyncio.Future[float] = loop.create_future()
            try:
                sock = await connected(kind, host, port)
                transport, _ = await loop.create_connection(partial(SlowClient, kind, ended.set_result), sock=sock)
            except OSError:
                await asyncio.sleep(PIECE_S)
                continue
            closing = asyncio.create_task(is_over.wait())
            either: set[asyncio.Future[Any]] = {ended, closing}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            closing.cancel()
            if ended.done():
                lasted[name].append(ended.result())
            transport.abort()

    names = [name for _, name in zip(range(count), _cycle(list(lasted)), strict=False)]
    tasks = [asyncio.create_task(keep(name, kinds()[name])) for name in names]
    await asyncio.sleep(PIECE_S)
    control.send(None)  # they are there
    await asyncio.to_thread(control.recv)
    is_over.set()
    await asyncio.gather(*tasks)
    control.send(lasted)


def _cycle(names: list[str]) -> Iterator[str]:
    while True:
        yield from names


@contextmanager
def slow_connections(url: str, count: int, lasted: dict[str, list[float]]) -> Iterator[None]:
    """Has them open for as long as the block runs, and adds how long those lasted that were cut off."""
    address = urlsplit(url)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=hold, args=(address.hostname, address.port, count, theirs)
    )
    process.start()
    ours.recv()
    yield
    ours.send(None)
    for name, times in ours.recv().items():
        lasted.setdefault(name, []).extend(times)
    process.join()


def rate(url: str, file: Path, seconds: float) -> float:
    """Requests per second of 16 normal clients."""
    command = [sys.executable, "-m", "benchmarks.load", url, str(file), "--seconds", str(seconds), "--warmup", "2"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return float(result["rate"])


def hold_alone(server: Server, count: int, seconds: float, lasted: dict[str, list[float]]) -> float:
    """How many cores the server needs for slow connections alone."""

    def used_s() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in server.processes())

    with slow_connections(server.url, count, lasted):
        before = used_s()
        time.sleep(seconds)
        return (used_s() - before) / seconds


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--connections", type=int, default=1000, help="slow ones (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    rounds, seconds = (2, 4.0) if arguments.quick else (5, 15.0)
    command = f"python -m iei serve --demo --workers {arguments.workers} --bind 127.0.0.1:0".split()
    alone: list[float] = []
    beside: list[float] = []
    lasted: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, serve({}, command=command) as server:
        file = Path(folder, "bodies")
        file.write_text("\n".join(bodies()))
        for number in range(rounds):
            alone.append(rate(server.url, file, seconds))
            with slow_connections(server.url, arguments.connections, lasted):
                beside.append(rate(server.url, file, seconds))
            print(f"round {number + 1}: {alone[-1]:.1f} alone, {beside[-1]:.1f} with slow ones", file=sys.stderr)
        cores = hold_alone(server, arguments.connections, 5 if arguments.quick else LONGEST_S, lasted)
    ratio = median(one / other for one, other in zip(beside, alone, strict=True))
    print(", ".join(f"{name} {value}" for name, value in machine.describe().items()))
    print(f"{median(alone):.1f} req/s alone, {median(beside):.1f} with {arguments.connections} slow ones: {ratio:.3f}")
    print(f"Alone, the slow ones take {100 * cores:.1f} % of one core.")
    rows = [
        [name, str(len(times)), *(f"{value:.1f}" for value in (median(times), max(times)))]
        for name, times in lasted.items()
        if times
    ]
    print(table(["slow connections", "cut off", "after s, median", "at most"], rows))


if __name__ == "__main__":
    main()
