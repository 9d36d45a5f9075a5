"""The load client is the ruler of the benchmarks: here it measures a server whose answers are known."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.load import run

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
CONNECTIONS, DELAY_S = 4, 0.02


class Server:
    """Answers each request after DELAY_S, in two pieces, on connections that stay open."""

    def __init__(self, status: str = "200 OK") -> None:
        self.status = status
        self.bodies: Counter[bytes] = Counter()
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(line for line in head.splitlines() if line.startswith("Content-Length"))
                self.bodies[await reader.readexactly(int(length.split()[1]))] += 1
                await asyncio.sleep(DELAY_S)
                writer.write(f"HTTP/1.1 {self.status}\r\ncontent-length: 7\r\n\r\n[[".encode())
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(b"0.5]]")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@contextmanager
def running(server: Server) -> Iterator[Server]:
    loop = asyncio.new_event_loop()
    listener = loop.run_until_complete(asyncio.start_server(server.serve, "127.0.0.1", 0))
    server.port = listener.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(listener.close)
        loop.call_soon_threadsafe(loop.call_later, 0.1, loop.stop)
        thread.join()
        loop.close()


def load(port: int, tmp_path: Path, seconds: float = 2) -> subprocess.CompletedProcess[str]:
    bodies = tmp_path / "bodies"
    bodies.write_text('{"inputs": ["a"]}\n{"inputs": ["b"]}')
    options = ["--connections", str(CONNECTIONS), "--warmup", "0.2", "--seconds", str(seconds)]
    command = [sys.executable, "-m", "benchmarks.load", f"http://127.0.0.1:{port}", str(bodies), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_it_counts_and_times_what_the_server_answers(tmp_path: Path) -> None:
    with running(Server()) as server:
        done = load(server.port, tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert server.connections == CONNECTIONS
    assert DELAY_S * 1e3 <= result["p50_ms"] <= result["p99_ms"]
    # One request at a time on each connection: Little's law ties rate and latency together.
    assert result["rate"] == pytest.approx(CONNECTIONS / result["p50_ms"] * 1e3, rel=0.3)
    a, b = server.bodies[b'{"inputs": ["a"]}'], server.bodies[b'{"inputs": ["b"]}']
    assert a + b == server.bodies.total()
    assert abs(a - b) <= CONNECTIONS, "bodies are sent in turn"


def test_an_answer_that_is_not_200_ends_it(tmp_path: Path) -> None:
    with running(Server("503 Service Unavailable")) as server:
        done = load(server.port, tmp_path)
    assert done.returncode == 1
    assert "an answer is not 200" in done.stderr
    assert "503" in done.stderr


def test_a_server_that_answers_nothing_is_no_rate_of_zero(tmp_path: Path) -> None:
    class Silent(Server):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1 << 16):
                """Read, and say nothing."""
            writer.close()

    with running(Silent()) as server:
        done = load(server.port, tmp_path, seconds=0.2)
    assert done.returncode == 1
    assert "no answer from" in done.stderr


def test_it_goes_on_until_there_are_enough_answers() -> None:
    edges = []

    async def measured(port: int) -> dict[str, float]:
        return await run(f"http://127.0.0.1:{port}", ["{}"], 1, 0, 0, path="/x", least=3, edge=lambda: edges.append(1))

    with running(Server()) as server:
        result = asyncio.run(measured(server.port))
    assert result["answers"] >= 3
    assert len(edges) == 2, "where the measurement begins, and where it ends"
