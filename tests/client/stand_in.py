"""A server that answers as it is told: for what a real one does only in trouble."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import numpy as np

INFO = {"dim": 1, "poolings": {"mean": 1}, "max_inputs": 1024, "max_body_bytes": 2**20}


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


RESET = Answer(0)
"""The connection is reset instead."""


def numbers(texts: list[str]) -> Answer:
    """The vector of the text "7" is [7]."""
    file = io.BytesIO()
    np.save(file, np.array([[float(text)] for text in texts], np.float32))
    return Answer(200, file.getvalue(), {"content-type": "application/x-npy"})


def refusal(status: int, message: str, **headers: str) -> Answer:
    return Answer(status, json.dumps({"error": message}).encode(), headers)


@dataclass
class StandIn:
    """What it was sent, and how it answers requests for embeddings."""

    answer: Callable[[list[str]], Answer] = numbers
    """The texts of a request → its answer. Called in a thread of its own for each request."""
    info: Mapping[str, Any] = field(default_factory=lambda: INFO)
    port: int = 0
    received: list[list[str]] = field(default_factory=list)
    """The texts of each request, in the order of their arrival. Of a form none."""
    sizes: list[int] = field(default_factory=list)
    """Bytes of each body."""
    headers: list[Message] = field(default_factory=list)
    most_at_a_time: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reply(self, body: bytes) -> Answer:
        texts: list[str] = json.loads(body)["inputs"] if body.startswith(b"{") else []
        with self._lock:
            self.received.append(texts)
            self.sizes.append(len(body))
            self._now += 1
            self.most_at_a_time = max(self.most_at_a_time, self._now)
        try:
            return self.answer(texts)
        finally:
            with self._lock:
                self._now -= 1

    @contextlib.contextmanager
    def running(self) -> Iterator[StandIn]:
        """It listens on a free port, or on `port` if that was set."""
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(Answer(200, json.dumps(stand_in.info).encode()))

            def do_POST(self) -> None:
                stand_in.headers.append(self.headers)
                self._send(stand_in.reply(self.rfile.read(int(self.headers["content-length"]))))

            def _send(self, answer: Answer) -> None:
                if answer is RESET:
                    # RST instead of FIN, as from a process that was killed.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in {**answer.headers, "content-length": str(len(answer.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError, ValueError):  # the client has gone, or RESET
                    super().handle()

            def finish(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    super().finish()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        with ThreadingHTTPServer(("127.0.0.1", self.port), Handler) as server:
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


def one_after_the_other(*answers: Answer) -> Callable[[list[str]], Answer]:
    """These answers, and then numbers."""
    left = iter(answers)
    return lambda texts: next(left, None) or numbers(texts)
