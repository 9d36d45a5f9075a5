"""Servers compute for a job: the same vectors, whichever of them answers, and while one of them is away."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from iei.bulk import remote
from iei.bulk.embedder import Embedder
from iei.bulk.items import Content, Encoded, Item, Text
from iei.bulk.options import BulkOptions
from iei.bulk.remote import Servers
from iei.bulk.row import Row
from iei.client import AsyncClient, Unreachable
from iei.errors import StartupError
from iei.settings import Settings, read_settings
from tests import pictures
from tests.servers import Server


def rows_of(embedder: Embedder, contents: list[Content]) -> list[Row]:
    async def all_of_them() -> list[Row]:
        async with embedder.running() as running:
            return [row async for row in running.rows(Item(str(n), each) for n, each in enumerate(contents))]

    return asyncio.run(all_of_them())


def test_rows_are_those_of_this_process(demo_server: Server, demo_cache: str) -> None:
    contents: list[Content] = [
        Encoded(pictures.jpeg()),
        Encoded(b"no picture"),
        Text("no text either"),
        *(Encoded(pictures.png(40 + number)) for number in range(40)),
        Encoded(pictures.encoded()["jpeg exif turned"]),
    ]
    options = BulkOptions(dimensions=64, normalize=True)
    there = rows_of(Embedder(Settings(), options, Servers([demo_server.url, demo_server.url], options)), contents)
    here = rows_of(Embedder(read_settings(model="demo", device="cpu", cache_dir=demo_cache), options), contents)
    assert len(there) == len(here)
    for ours, theirs in zip(here, there, strict=True):
        assert (ours.id, ours.sha256, ours.error is None) == (theirs.id, theirs.sha256, theirs.error is None)
        assert ours.error or ours.picture == theirs.picture
        assert (ours.embedding is None) == (theirs.embedding is None)
        if ours.embedding is not None and theirs.embedding is not None:
            assert np.allclose(ours.embedding, theirs.embedding, atol=1e-5)
    assert there[1].error == here[1].error
    assert there[-1].picture == (64, 96)


class Faulty(BaseHTTPRequestHandler):
    """Passes the questions of a server's clients on, and answers what is to be embedded with 503."""

    upstream = ""

    def do_GET(self) -> None:
        import httpx

        answer = httpx.get(self.upstream + self.path)
        self._answer(answer.status_code, answer.content)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(503, b'{"error": "the engine is not there"}')

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def faulty(demo_server: Server) -> Iterator[str]:
    handler = type("Passing", (Faulty,), {"upstream": demo_server.url})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_what_one_server_does_not_answer_another_does(
    demo_server: Server, faulty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ATTEMPTS", 1000)
    options = BulkOptions()
    servers = Servers([faulty, demo_server.url], options)
    rows = rows_of(Embedder(Settings(), options, servers), [Encoded(pictures.png())] * 100)
    assert [row.error for row in rows] == [None] * 100


def test_an_input_that_no_server_survives_has_an_error(faulty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.001,))
    options = BulkOptions()
    (row,) = rows_of(Embedder(Settings(), options, Servers([faulty], options)), [Encoded(pictures.png())])
    assert row.error is not None
    assert row.error.startswith("5 requests with it have failed")
    assert "the engine is not there" in row.error


def test_a_job_ends_when_no_server_comes_back(faulty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.001,))
    monkeypatch.setattr(remote, "ATTEMPTS", 1000)
    monkeypatch.setattr(remote, "GIVE_UP_S", 0.0)
    monkeypatch.setattr(AsyncClient, "info", _gone)
    options = BulkOptions()
    with pytest.raises(StartupError, match="no server has answered for 0 s"):
        rows_of(Embedder(Settings(), options, Servers([faulty], options)), [Encoded(pictures.png())])


def test_a_mistake_ends_the_job_and_does_not_leave_it_waiting(faulty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsyncClient, "embed_images", lambda *_, **__: 1 / 0)
    options = BulkOptions()
    with pytest.raises(ZeroDivisionError):
        rows_of(Embedder(Settings(), options, Servers([faulty], options)), [Encoded(pictures.png())])


async def _gone(*_: object) -> None:
    raise Unreachable("no server answers")


def test_servers_that_can_not_be_used_are_named_at_once(demo_server: Server, text_server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StartupError, match=rf"--server http://127.0.0.1:{port}: no server answers"):
        Servers([f"http://127.0.0.1:{port}"], BulkOptions())
    with pytest.raises(StartupError, match="would give different vectors: dimensions is 192 and"):
        Servers([demo_server.url, text_server.url], BulkOptions())
    with pytest.raises(StartupError, match="does not offer the pooling 'last'"):
        Servers([demo_server.url], BulkOptions(pooling="last"))
