"""Clients that are slow, greedy or many, at a server whose limits are small."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from tests import pictures
from tests.servers import Server, gunicorn_command, serve

pytestmark = pytest.mark.server

DESCRIPTORS = 168
"""What each process of the server may open."""
CONNECTIONS = DESCRIPTORS - 128
HEAD_BYTES = 2048
TRICKLE_S = 0.1
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def strict_server(demo_cache: str) -> Iterator[Server]:
    """One worker, as gunicorn alone runs it, in which everything takes a second at most."""
    env = {
        "IMAGE_EMBEDDING_MODEL": "demo",
        "IEI_CACHE_DIR": demo_cache,
        "IEI_HEAD_TIMEOUT_S": "1",
        "IEI_BODY_TIMEOUT_S": "1",
        "IEI_WRITE_TIMEOUT_S": "1",
        "IEI_MAX_HEAD_BYTES": str(HEAD_BYTES),
    }
    gunicorn = " ".join(gunicorn_command(1, "uvicorn.workers.UvicornWorker")[1:])
    with serve(
        env, command=["bash", "-c", f'ulimit -n {DESCRIPTORS} && exec "$0" {gunicorn}', sys.executable]
    ) as server:
        yield server


class Line:
    """A connection that is used byte by byte."""

    def __init__(self, server: Server, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_bytes:  # before it connects: it decides how much the server may send ahead
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", httpx.URL(server.url).port or 0))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until_closed(self) -> bytes:
        """All that arrives before the server closes the connection."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(65536):
                received += data
        return received

    def trickle_until_closed(self, piece: bytes) -> bytes:
        """Sends `piece` again and again, until the server has closed the connection. Returns what it has sent."""
        self.socket.settimeout(TRICKLE_S)
        received, give_up_at = b"", time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_at:
            try:
                self.socket.sendall(piece)
                data = self.socket.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                return received
            if not data:
                return received
            received += data
        raise AssertionError(f"still open after {PATIENCE_S} s")

    def answer(self, pause_s: float = 0) -> bytes:
        """The next answer, read in pieces with a pause after each."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._some()
        length = re.search(rb"(?i)content-length: (\d+)", received)
        assert length, received
        whole = received.index(b"\r\n\r\n") + 4 + int(length[1])
        while len(received) < whole:
            time.sleep(pause_s)
            received += self._some()
        return received

    def _some(self) -> bytes:
        data = self.socket.recv(65536)
        assert data, "closed in the middle"
        return data

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


TCP_ESTABLISHED = 1
"""The first byte of Linux's struct tcp_info."""

PING = b"GET /ping HTTP/1.1\r\nHost: iei\r\n\r\n"


def post(path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: iei\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


# heads


def test_a_connection_on_which_nothing_is_sent_is_closed_without_a_word(strict_server: Server) -> None:
    with Line(strict_server) as line:
        assert line.until_closed() == b""


def test_a_head_that_arrives_slowly_is_told_so(strict_server: Server) -> None:
    with Line(strict_server) as line:
        line.send(b"GET /ping HTTP/1.1\r\nX-Slow: ")
        answer = line.trickle_until_closed(b"a")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer
    assert "IEI_HEAD_TIMEOUT_S" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


@pytest.mark.parametrize("piece", [b"G", b"\r\n"], ids=["head", "blank lines"])
def test_a_slow_head_after_an_answer_is_no_better(strict_server: Server, piece: bytes) -> None:
    with Line(strict_server) as line:
        line.send(PING)
        assert line.answer().startswith(b"HTTP/1.1 200 ")
        line.send(piece)
        answer = line.until_closed()
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_outlives_the_limit_for_heads(strict_server: Server) -> None:
    """gunicorn's keep-alive, here 2 s, is its limit."""
    with Line(strict_server) as line:
        started = time.monotonic()
        line.send(PING)
        line.answer()
        assert line.until_closed() == b""
        assert time.monotonic() - started > 1.5


@pytest.mark.parametrize(
    "head",
    [b"GET /" + b"a" * HEAD_BYTES, b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES, b"GET / HTTP/1.1" + b"\r\nX: y" * 999],
    ids=["path", "header", "headers"],
)
def test_a_head_that_is_too_large_is_refused_before_it_ends(strict_server: Server, head: bytes) -> None:
    with Line(strict_server) as line:
        line.send(head)
        answer = line.until_closed()
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert "IEI_MAX_HEAD_BYTES" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_only_the_head_counts_as_head(strict_server: Server) -> None:
    """In one write, so that bodies follow their heads in one read of the server; twice, as a pipeline."""
    photo = pictures.base64_of(pictures.jpeg())
    request = post("/embed", {"inputs": [photo]})
    assert len(request) > 4 * HEAD_BYTES
    with Line(strict_server) as line:
        line.send(request + request + PING)
        received = b""
        while not received.endswith(b"}") or received.count(b"HTTP/1.1 200 ") < 3:
            data = line.socket.recv(65536)
            assert data, received
            received += data
    assert b"pong" in received


# bodies and answers


def test_a_slow_body_is_refused_and_then_cut_off(strict_server: Server) -> None:
    with Line(strict_server) as line:
        line.send(b"POST /embed HTTP/1.1\r\nHost: iei\r\nContent-Length: 1000000\r\n\r\n")
        answer = line.trickle_until_closed(b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"IEI_BODY_TIMEOUT_S" in answer


def test_the_rest_of_a_body_that_nobody_reads_is_cut_off(strict_server: Server) -> None:
    """The route does not exist, so the answer comes before the body, and does not close the connection."""
    with Line(strict_server) as line:
        line.send(b"POST /nothing HTTP/1.1\r\nHost: iei\r\nContent-Length: 1000000\r\n\r\n")
        answer = line.trickle_until_closed(b" ")
    assert answer.startswith(b"HTTP/1.1 404 ")


def tokens_of_many_pictures() -> bytes:
    """A request with an answer of about 8 MB, more than the kernels' buffers of both sides hold."""
    return post("/embed_all", {"inputs": [pictures.base64_of(pictures.png())] * 20})


def test_an_answer_that_nobody_reads_is_cut_off(strict_server: Server) -> None:
    with Line(strict_server, receive_bytes=4096) as line:
        line.send(tokens_of_many_pictures())
        give_up_at = time.monotonic() + PATIENCE_S
        while line.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO) == TCP_ESTABLISHED:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)


def test_an_answer_that_is_read_slowly_arrives(strict_server: Server) -> None:
    with Line(strict_server, receive_bytes=65536) as line:
        line.send(tokens_of_many_pictures())
        started = time.monotonic()
        answer = line.answer(pause_s=0.02)
        assert time.monotonic() - started > 2  # twice the limit
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])) == 20


# their number


def test_the_longest_idle_connection_makes_room_for_a_new_one(strict_server: Server) -> None:
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(Line(strict_server)) for _ in range(3 * CONNECTIONS)]
        lines[-1].send(PING)
        assert lines[-1].answer().startswith(b"HTTP/1.1 200 ")
        assert lines[0].until_closed() == b""
    assert httpx.get(f"{strict_server.url}/ping").status_code == 200
    assert "its limit on open files is" in strict_server.log


def test_where_all_connections_are_busy_a_new_one_is_told_so(strict_server: Server) -> None:
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(Line(strict_server)) for _ in range(CONNECTIONS)]
        for line in busy:
            line.send(b"POST /v1/embeddings HTTP/1.1\r\nHost: iei\r\nContent-Length: 10\r\n\r\n")
        with Line(strict_server) as line:
            line.send(post("/v1/embeddings", {}))
            answer = line.until_closed()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert "IEI_MAX_CONNECTIONS" in error["message"]  # OpenAI's form
