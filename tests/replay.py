"""Requests as other people's programs write them, byte for byte, where the programs themselves can't be had."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One TCP connection, kept for all requests as the connection pools of clients do.

    Args:
        url: http://host:port of the server.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.host = address.netloc
        self._address = (address.hostname or "", address.port or 80)
        self._socket = self._connected()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._socket.close()

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """The answer to a request with exactly these headers, in this order."""
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        content = "\r\n".join(lines).encode("latin-1") + body
        try:
            return self._exchange(method, content)
        except ConnectionError:  # closed by the server while it was idle: pools send the request again
            self._socket.close()
            self._socket = self._connected()
            return self._exchange(method, content)

    def _connected(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=120)

    def _exchange(self, method: str, content: bytes) -> Answer:
        self._socket.sendall(content)
        response = http.client.HTTPResponse(self._socket, method=method)
        response.begin()
        return Answer(response.status, response.msg, response.read())
