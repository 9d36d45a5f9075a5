"""Workers that accept by themselves: alone in this process, and side by side as a server runs them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uvicorn
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from iei.serving import accepting
from iei.serving.accepting import accept_evenly
from iei.serving.connections import Connections
from iei.serving.spread import Spread
from iei.settings import ConnectionSettings
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import METRICS
from tests.servers import Server, serve

LIMIT_S = 20.0
REQUEST = b"GET /ping HTTP/1.1\r\nHost: iei\r\n\r\n"

uvloop = pytest.importorskip("uvloop")
on_both_loops = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


def run(scenario: Coroutine[Any, Any, None], new_loop: NewLoop) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(scenario, 2 * LIMIT_S))


async def pong(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI: answers once the body is there."""
    while (await receive()).get("more_body", False):
        pass
    await PlainTextResponse("pong")(scope, receive, send)


class Worker:
    """uvicorn in this process, at sockets that others could have, too."""

    def __init__(self, settings: ConnectionSettings | None = None, **options: Any) -> None:
        self.server = uvicorn.Server(uvicorn.Config(pong, lifespan="off", log_config=None, **options))
        self.connections = Connections(
            settings or ConnectionSettings(),
            lambda scope, error: Response(status_code=error.status),
            Spread(Counters(METRICS)),
        )
        self.server.config.load()
        self.server.config.http_protocol_class = self.connections.protocol  # type: ignore[assignment]

    @contextlib.asynccontextmanager
    async def serving(self, *listeners: socket.socket) -> AsyncIterator[None]:
        """Runs until the end of the block, and then until it has stopped by itself."""
        accept_evenly(asyncio.get_running_loop(), self.connections)
        task = asyncio.create_task(self.server.serve(sockets=list(listeners)))
        try:
            await until(lambda: self.server.started or task.done())
            yield
        finally:
            self.server.should_exit = True
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)


def port() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def connected(listener: socket.socket) -> socket.socket:
    """Completed by the kernel, whether somebody accepts or not."""
    return socket.create_connection(listener.getsockname(), timeout=LIMIT_S)


async def answer(client: socket.socket) -> bytes:
    client.sendall(REQUEST)
    return await read_head(client)


async def read_head(client: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(sock=client)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
    writer.close()
    return head


@on_both_loops
def test_whoever_waits_at_any_port_when_a_worker_starts_is_answered(new_loop: NewLoop) -> None:
    async def scenario() -> None:
        listeners = [port(), port()]
        clients = [connected(listener) for listener in listeners for _ in range(20)]
        async with Worker().serving(*listeners):
            heads = await asyncio.gather(*map(answer, clients))
        assert {head.split(b"\r\n")[0] for head in heads} == {b"HTTP/1.1 200 OK"}

    run(scenario(), new_loop)


@on_both_loops
def test_one_too_many_takes_no_place_of_those_whose_requests_have_not_been_read(new_loop: NewLoop) -> None:
    async def scenario() -> None:
        listener = port()
        busy = [connected(listener) for _ in range(10)]
        for client in busy:
            client.sendall(b"POST /ping HTTP/1.1\r\nHost: iei\r\nContent-Length: 1\r\n\r\n")
        one_too_many = connected(listener)
        worker = Worker(ConnectionSettings(max_connections=len(busy)))
        async with worker.serving(listener):
            assert (await answer(one_too_many)).startswith(b"HTTP/1.1 503 ")
            for client in busy:
                client.sendall(b".")
                assert (await read_head(client)).startswith(b"HTTP/1.1 200 ")

    run(scenario(), new_loop)


@on_both_loops
def test_a_unix_socket_is_a_port(new_loop: NewLoop, tmp_path: Path) -> None:
    async def scenario() -> None:
        path = str(tmp_path / "port")
        listener, client = (socket.socket(socket.AF_UNIX) for _ in range(2))
        listener.bind(path)
        async with Worker().serving(listener):
            client.connect(path)
            assert (await answer(client)).startswith(b"HTTP/1.1 200 ")

    run(scenario(), new_loop)


@on_both_loops
def test_a_worker_that_is_to_stop_before_it_has_started_closes_its_port(new_loop: NewLoop) -> None:
    async def scenario() -> None:
        listener = port()
        address = listener.getsockname()
        worker = Worker()
        worker.server.should_exit = True
        async with worker.serving(listener):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    run(scenario(), new_loop)


def tls_worker(certificate: Path) -> Worker:
    return Worker(ssl_certfile=certificate / "cert.pem", ssl_keyfile=certificate / "key.pem")


@on_both_loops
def test_a_handshake_counts_as_a_connection_and_a_stop_waits_for_it_and_its_request(
    new_loop: NewLoop, certificate: Path
) -> None:
    async def scenario() -> None:
        listener, worker = port(), tls_worker(certificate)
        trusted = ssl.create_default_context(cafile=certificate / "cert.pem")
        async with worker.serving(listener):
            client = connected(listener)
            await until(lambda: len(worker.connections.open) == 1)
            worker.server.should_exit = True
            await until(lambda: not any(each.sockets for each in worker.server.servers))
            reader, writer = await asyncio.open_connection(sock=client, ssl=trusted, server_hostname="localhost")
            writer.write(REQUEST)
            assert (await asyncio.wait_for(reader.read(), LIMIT_S)).startswith(b"HTTP/1.1 200 ")  # and then closed
            writer.close()

    run(scenario(), new_loop)


@on_both_loops
def test_a_handshake_that_fails_is_forgotten_without_a_word(
    new_loop: NewLoop, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        listener, worker = port(), tls_worker(certificate)
        async with worker.serving(listener):
            with connected(listener) as client:
                await until(lambda: len(worker.connections.open) == 1)
                client.sendall(REQUEST)
                await until(lambda: not worker.connections.open)
            assert not worker.server.server_state.connections

    run(scenario(), new_loop)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


class OutOfFiles(socket.socket):
    """Whose next accepts fail."""

    failures = 3

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@on_both_loops
def test_too_many_open_files_are_waited_for_and_logged_once(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "RETRY_S", 0.01)

    async def scenario() -> None:
        listener = OutOfFiles(fileno=port().detach())
        async with Worker().serving(listener):
            assert (await answer(connected(listener))).startswith(b"HTTP/1.1 200 ")
        assert not listener.failures

    run(scenario(), new_loop)
    assert [record.getMessage() for record in caplog.records if "can be accepted" in record.getMessage()] == [
        "no connection can be accepted, which is tried again each second: [Errno 24] Too many open files"
    ]


# side by side

WORKERS = 4


@pytest.mark.server
def test_connections_are_spread_over_the_workers_that_live(demo_cache: str) -> None:
    command = f"python -m iei serve --demo --workers {WORKERS} --bind 127.0.0.1:0".split()
    with serve({"IEI_CACHE_DIR": demo_cache, "IEI_THREADS": "1"}, command=command) as server:
        workers = server.all_workers(WORKERS)
        _wait_for_all(server, workers)
        with contextlib.ExitStack() as clients:
            for _ in range(16 * WORKERS):
                clients.enter_context(_answered(server))
            counts = {worker: _connections(worker) for worker in workers}
            assert sum(counts.values()) == 16 * WORKERS
            assert min(counts.values()) >= 1, counts  # whoever waits for a core for longer than others wait is late
            hanging = min(counts, key=lambda worker: counts[worker])
            hanging.send_signal(signal.SIGSTOP)
            try:
                for _ in range(16):
                    clients.enter_context(_answered(server))
                assert _connections(hanging) == counts[hanging]
            finally:
                hanging.send_signal(signal.SIGCONT)


def _answered(server: Server) -> socket.socket:
    """A connection that has been accepted."""
    client = socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0), timeout=LIMIT_S)
    client.sendall(REQUEST)
    received = b""
    while b"pong" not in received:
        data = client.recv(65536)
        assert data, received
        received += data
    return client


def _wait_for_all(server: Server, workers: list[psutil.Process]) -> None:
    """Returns when each worker has opened its port: the first answers before the last is there."""
    give_up_at = time.monotonic() + LIMIT_S
    with contextlib.ExitStack() as stack:
        while not all(map(_connections, workers)):
            assert time.monotonic() < give_up_at
            stack.enter_context(_answered(server))
    while any(map(_connections, workers)):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def _connections(worker: psutil.Process) -> int:
    return sum(each.status == psutil.CONN_ESTABLISHED for each in worker.net_connections("tcp"))
