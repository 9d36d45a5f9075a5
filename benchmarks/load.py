"""The load: a process of its own that keeps N connections busy with one request each, and costs little itself.

    python -m benchmarks.load http://127.0.0.1:8000 BODIES [--connections 16] [--warmup 3] [--seconds 10]

BODIES is a file with one body per line, sent to `POST /embed` in turn: JSON, or, with --type, base64 of a file.
Requests are made once, as bytes, and answers are only framed and checked for their status: what this process uses of
the CPU, the server can't. Its share is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop

POLL_S = 0.1


@dataclass
class Load:
    """What all connections share: requests to send, and what was measured."""

    requests: Iterator[bytes]
    latencies_s: list[float] = field(default_factory=list)
    """Of the answers since the last `clear`."""
    failure: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    stopped: bool = False

    def fail(self, reason: str) -> None:
        """Ends the measurement with the first thing that goes wrong."""
        if not self.failure.done() and not self.stopped:
            self.failure.set_exception(RuntimeError(reason))


class Connection(asyncio.Protocol):
    """Sends a request, waits for the whole answer, sends the next."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.answer = bytearray()
        self.length: int | None = None
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the first request."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self.send()

    def send(self) -> None:
        """Sends the next request and starts its clock."""
        self.answer.clear()
        self.length = None
        self.sent = time.perf_counter()
        self.transport.write(next(self.load.requests))

    def data_received(self, data: bytes) -> None:
        """Collects an answer until it has the length that its header says."""
        self.answer += data
        if self.length is None and (end := self.answer.find(b"\r\n\r\n")) >= 0:
            self.length = end + 4 + content_length(bytes(self.answer[:end]))
        if self.length is not None and len(self.answer) >= self.length:
            self.complete()

    def complete(self) -> None:
        """Notes the latency of an answer and sends the next request."""
        if not self.answer.startswith(b"HTTP/1.1 200 "):
            self.load.fail(f"an answer is not 200: {bytes(self.answer[:400])!r}")
            return
        self.load.latencies_s.append(time.perf_counter() - self.sent)
        if not self.load.stopped:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """A failure, unless the measurement is over."""
        self.load.fail(f"the server closed a connection: {exc}")


def content_length(head: bytes) -> int:
    """Bytes of the body that follows `head`."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError(f"an answer without Content-Length: {head!r}")


JSON = "application/json"


def request(host: str, body: str, headers: Sequence[str] = (), content_type: str = JSON, path: str = "/embed") -> bytes:
    """One HTTP request, as bytes; a body of another type than JSON comes as base64."""
    data = body.encode() if content_type == JSON else base64.b64decode(body)
    head = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Type: {content_type}", f"Content-Length: {len(data)}"]
    return "\r\n".join([*head, *headers, "", ""]).encode() + data


async def run(
    url: str,
    bodies: list[str],
    connections: int,
    warmup_s: float,
    seconds: float,
    headers: Sequence[str] = (),
    content_type: str = JSON,
    *,
    path: str = "/embed",
    least: int = 0,
    edge: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Rate, latencies and this process's own CPU time (in cores) over `seconds`, after `warmup_s`.

    Args:
        url: of the server.
        bodies: sent in turn.
        connections: each has one request in work.
        warmup_s: seconds that don't count.
        seconds: that count.
        headers: sent with every request.
        content_type: of the bodies; those of another type than JSON come as base64.
        path: of the route.
        least: answers, without which neither the warm-up nor the measurement ends.
        edge: called where the measurement begins and where it ends.
    """
    address = urlsplit(url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    load = Load(itertools.cycle([request(address.netloc, body, headers, content_type, path) for body in bodies]))
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: Connection(load), host, port) for _ in range(connections)]
    await watch(load, warmup_s, least)
    edge()
    load.latencies_s.clear()
    started, cpu = time.perf_counter(), time.process_time()
    await watch(load, seconds, least)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    edge()
    load.stopped = True
    for transport, _ in opened:
        transport.abort()
    if not load.latencies_s:
        raise RuntimeError(f"no answer from {url} in {elapsed:.0f} s")
    p50, p99 = np.percentile(load.latencies_s, (50, 99))
    return {
        "answers": len(load.latencies_s),
        "rate": len(load.latencies_s) / elapsed,
        "p50_ms": p50 * 1e3,
        "p99_ms": p99 * 1e3,
        "client_cpu": cpu / elapsed,
    }


async def watch(load: Load, seconds: float, least: int = 0) -> None:
    """Lets `seconds` pass and `least` answers come, or raises what went wrong meanwhile."""
    while True:
        try:
            await asyncio.wait_for(asyncio.shield(load.failure), seconds)
        except TimeoutError:
            if len(load.latencies_s) >= least:
                return
            seconds = POLL_S


def main() -> None:
    """Prints the result as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("bodies", type=Path)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--header", action="append", default=[], help="'Name: value', sent with every request")
    parser.add_argument("--type", default=JSON, help="of the bodies (default: %(default)s)")
    parser.add_argument("--warmup", type=float, default=3, help="seconds that don't count (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="seconds that count (default: %(default)s)")
    arguments = parser.parse_args()
    bodies = arguments.bodies.read_text().splitlines()
    times = arguments.warmup, arguments.seconds
    result = uvloop.run(run(arguments.url, bodies, arguments.connections, *times, arguments.header, arguments.type))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
