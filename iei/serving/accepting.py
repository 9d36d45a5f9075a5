"""Connections are accepted one at a time, and by the worker that has the fewest, if it comes in time.

They are not passed on by workers that have many: a worker that hangs has the fewest soon, and whoever is passed on to
it hangs as well.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from iei.serving.connections import BoundedHttp, Connections

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""After an error that will last, such as too many open files."""


def accept_evenly(loop: asyncio.AbstractEventLoop, connections: Connections) -> None:
    """Has `loop` make `Acceptor`s of sockets that exist already: those may be shared with other workers.

    A server that opens its port by itself is alone at it, and stays as it is. uvicorn closes what `create_server`
    returns, however it stops.
    """
    create_server = loop.create_server

    async def create(
        factory: Callable[[], BoundedHttp], *args: Any, sock: socket.socket | None = None, **options: Any
    ) -> asyncio.Server | Acceptor:
        if sock is None:
            if options.get("ssl"):
                options.setdefault("ssl_handshake_timeout", connections.settings.head_timeout_s)
            return await create_server(factory, *args, **options)
        sock.listen(options["backlog"])
        return Acceptor(loop, sock, connections, factory)

    loop.create_server = create  # type: ignore[method-assign, assignment]  # what uvicorn calls of it


class Acceptor:
    """Accepts at one listening socket, from its beginning until `close`: what uvicorn needs of an `asyncio.Server`.

    Args:
        loop: of this worker.
        listener: owned from now on.
        connections: of this worker.
        new: a connection that is not made yet.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        connections: Connections,
        new: Callable[[], BoundedHttp],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._connections = connections
        self._new = new
        self._has_failed = False
        self._is_closed = False
        listener.setblocking(False)
        connections.spread.enter()
        self._watch()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket, while it is open."""
        return () if self._is_closed else (self._listener,)

    def close(self) -> None:
        """Stops accepting. Connections stay open."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self._connections.spread.leave()

    async def wait_closed(self) -> None:
        """Returns at once: uvicorn waits for the connections itself."""

    def _watch(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listener.fileno(), self._somebody_waits)

    def _pause(self) -> None:
        """Until `_watch`. The loop would come back at once: the socket stays readable while somebody waits there."""
        self._loop.remove_reader(self._listener.fileno())

    def _somebody_waits(self) -> None:
        if wait_s := self._connections.spread.wait_s():
            self._pause()
            self._loop.call_later(wait_s, self._accept_what_is_left)
        else:
            self._accept()

    def _accept_what_is_left(self) -> None:
        if not self._is_closed:
            self._watch()
            self._accept()

    def _accept(self) -> None:
        """One connection; the next when what this one has sent is read: one too many would take its place before."""
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # taken by another worker, or gone
            return
        except OSError as error:
            if not self._has_failed:
                log.error("no connection can be accepted, which is tried again each second: %s", error)
            self._has_failed = True
            self._pause()
            self._loop.call_later(RETRY_S, self._watch)
            return
        self._has_failed = False
        connection = self._new()
        made = self._connections.take(client, connection)
        if not connection.config.ssl:  # a handshake takes as long as the client likes
            self._pause()
            made.add_done_callback(lambda _: self._watch())
