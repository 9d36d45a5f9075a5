"""Limits on connections that uvicorn does not have: time and size of request heads, time to read answers, their number.

They are checked by one loop that looks at all connections of a worker, and not by timers of each: a request costs two
readings of the clock.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import resource
import socket
import struct
import sys
import termios
from collections.abc import Callable
from time import monotonic
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from iei.errors import HeadTimeout, HeadTooLarge, IEIError, TooManyConnections
from iei.serving.spread import Spread
from iei.settings import ConnectionSettings

log = logging.getLogger(__name__)

PROGRESS_BYTES = 16 * 1024
"""What a client must take of an answer in `IEI_WRITE_TIMEOUT_S`, or else all that is left of it."""
LINGER_S = 1.0
"""How long idle connections outlive the port: a balancer that is refused one sends nothing more over the others."""
OTHER_DESCRIPTORS = 128
"""Of a worker, besides its clients' connections: engines, downloads, files."""

Respond = Callable[[Scope, IEIError], Response]


class Connections:
    """The HTTP connections of one worker.

    Args:
        settings: their limits.
        respond: makes the response to a request that is refused.
        spread: is told how many there are.
    """

    def __init__(self, settings: ConnectionSettings, respond: Respond, spread: Spread) -> None:
        self.settings = settings
        self.spread = spread
        self.max = min(settings.max_connections, _descriptors(settings.max_connections + OTHER_DESCRIPTORS))
        self.open: set[BoundedHttp] = set()
        """Those, too, whose TLS handshake is under way."""
        self.idle: dict[BoundedHttp, None] = {}
        """Those that wait for the head of a request, in the order in which they began to."""
        self.is_draining = False
        """Whether every response ends its connection."""
        self._respond = respond
        self.too_large = self._response(
            HeadTooLarge(f"the head of the request is over {settings.max_head_bytes} bytes (IEI_MAX_HEAD_BYTES)")
        )
        """The whole response to a head that is too large."""
        self.too_slow = self._response(
            HeadTimeout(f"the head of the request took over {settings.head_timeout_s:g} s (IEI_HEAD_TIMEOUT_S)")
        )

    def protocol(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> BoundedHttp:
        """A new connection: what uvicorn calls in place of its own protocol class."""
        return BoundedHttp(self, config, server_state, app_state, _loop)

    def take(self, client: socket.socket, connection: BoundedHttp) -> asyncio.Task[None]:
        """Makes `connection` of a socket that has been accepted, in a task; a stop waits for both."""
        client.setblocking(False)
        self._add(connection)
        connection.connections.add(connection)
        task = connection.loop.create_task(self._make(client, connection))
        connection.tasks.add(task)
        task.add_done_callback(connection.tasks.discard)
        return task

    async def _make(self, client: socket.socket, connection: BoundedHttp) -> None:
        tls = connection.config.ssl
        handshake_s = self.settings.head_timeout_s if tls else None
        try:
            await connection.loop.connect_accepted_socket(
                lambda: connection, client, ssl=tls, ssl_handshake_timeout=handshake_s
            )
        except OSError as error:  # the client is gone, slow, or speaks another protocol
            log.debug("a connection was not made: %s", error)
        finally:
            if not connection.is_made:
                connection.connections.discard(connection)
                self.closed(connection)

    def drain(self) -> None:
        """From now on, every response ends its connection. Idle connections stay open."""
        self.is_draining = True
        self.spread.leave()
        for connection in self.open:
            connection.end_after_response()

    async def watch(self) -> None:
        """Cuts connections off that take too long, and says that this worker lives. Never returns."""
        period_s = min(1.0, self.settings.head_timeout_s / 4, self.settings.write_timeout_s / 4)
        while True:
            self.spread.beat()
            await asyncio.sleep(period_s)
            now = monotonic()
            for connection in tuple(self.open):
                if connection.is_made:
                    connection.check(now)

    def opened(self, connection: BoundedHttp) -> None:
        """A connection is made, and waits for a request."""
        if connection not in self.open:
            self._add(connection)
        self.idle[connection] = None

    def closed(self, connection: BoundedHttp) -> None:
        """Forgets a connection."""
        self.open.discard(connection)
        self.idle.pop(connection, None)
        self.spread.tell(len(self.open))

    def _add(self, connection: BoundedHttp) -> None:
        """Counts a new connection. If there are too many, the one that has been idle for longest makes room."""
        if len(self.open) >= self.max and self.idle:
            longest = next(iter(self.idle))
            self.closed(longest)
            longest.transport.abort()  # `close` would wait for a client that does not read
        self.open.add(connection)
        self.spread.tell(len(self.open))

    async def refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: answers a request that came over one connection too many."""
        error = TooManyConnections(
            f"this worker serves {self.max} connections already (IEI_MAX_CONNECTIONS): try again later"
        )
        await self._respond(scope, error)(scope, receive, send)

    def _response(self, error: IEIError) -> bytes:
        """As bytes, for a request that is not known: in the form of the server's own routes."""
        response = self._respond({"type": "http", "method": "GET", "path": "/", "headers": []}, error)
        lines = [b"%s: %s\r\n" % header for header in response.raw_headers]
        return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", bytes(response.body)])


class BoundedHttp(HttpToolsProtocol):
    """One connection: uvicorn's HTTP, within limits."""

    def __init__(
        self,
        all_of_worker: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = all_of_worker
        self._settings = all_of_worker.settings
        self._head_room = self._settings.max_head_bytes
        """Bytes that may arrive before a head is complete."""
        self._waits_since = self._moved_at = monotonic()
        self._unread_then = 0
        """Bytes that the client had to read at `_moved_at`, with those that were written since."""
        self.is_made = False
        """False until the TLS handshake is done."""
        self._is_shut_down = False

    # uvicorn's events

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self.is_made = True
        self._waits_since = monotonic()
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._all.opened(self)
        if self._is_shut_down:  # what it was opened for may be on its way
            self.loop.call_later(LINGER_S if self._all.is_draining else LINGER_S / 2, super().shutdown)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        super().connection_lost(exc)
        self._all.closed(self)

    def data_received(self, data: bytes | memoryview) -> None:
        """Parses what has arrived, but not more of a head than it may have."""
        if self.timeout_keep_alive_task is not None:  # the first bytes of a next request
            self._waits_since = monotonic()
        room = self._head_room
        if len(data) <= room:
            self._head_room = room - len(data)
            super().data_received(data)  # type: ignore[arg-type]  # httptools parses any buffer
            return
        self._head_room = 0
        view = memoryview(data)
        super().data_received(view[:room])  # type: ignore[arg-type]
        if self.transport.is_closing():
            return
        if self._head_room == 0:  # nothing has set it: the head goes on
            self._refuse(self._all.too_large)
        else:
            self.data_received(view[room:])

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._head_room = sys.maxsize  # of a body: BodyLimits counts it
        self._all.idle.pop(self, None)
        if len(self._all.open) > self._all.max:
            self.app = self._all.refuse
        super().on_headers_complete()
        if self._all.is_draining:
            self.end_after_response()

    def on_message_complete(self) -> None:
        """A body is complete."""
        self._head_room = self._settings.max_head_bytes
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A response has been handed to the transport."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:  # no other request waits
            self._waits_since = monotonic()
            self._all.idle[self] = None

    def resume_writing(self) -> None:
        """The client has taken most of what waited for it."""
        super().resume_writing()
        self._moved_at, self._unread_then = monotonic(), 0

    def shutdown(self) -> None:
        """The port has been closed: so will this connection be, once it is idle."""
        self._is_shut_down = True
        if not self.is_made:
            return  # `connection_made` does it
        if self._all.is_draining and not self._is_answering:
            self.loop.call_later(LINGER_S, super().shutdown)
        else:
            super().shutdown()

    # limits

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def end_after_response(self) -> None:
        """The last of the requests that are in work says `Connection: close` in its response."""
        last = self.pipeline[0][0] if self.pipeline else self.cycle
        if last is not None:
            last.keep_alive = False

    def check(self, now: float) -> None:
        """Cuts the connection off if its client has been too slow. `now` is of the monotonic clock, in seconds."""
        unread = self._unread()
        if not unread or self._unread_then - unread >= PROGRESS_BYTES:
            self._moved_at, self._unread_then = now, unread
        elif now - self._moved_at > self._settings.write_timeout_s and (
            self.flow.write_paused or not self._is_answering  # it is the client that is waited for
        ):
            return self._reset()
        else:
            self._unread_then = max(unread, self._unread_then)  # more may have been written
        if self._is_answering or self.timeout_keep_alive_task is not None or self.transport.is_closing():
            return
        if now - self._waits_since > self._settings.head_timeout_s:
            self._refuse_slow()

    def _unread(self) -> int:
        """Bytes that the client's machine has not acknowledged, in the transport and in the kernel.

        The kernel takes megabytes, and has room for more only when much of it has been read: seen from here, a slow but
        moving line would stand still for a minute.
        """
        try:
            (in_kernel,) = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)))
        except OSError:  # closed, and `connection_lost` is about to be called
            return 0
        return self.transport.get_write_buffer_size() + int(in_kernel)

    def _reset(self) -> None:
        """Drops what the kernel has for the client, too: it would keep that, megabytes of it, for minutes."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _refuse_slow(self) -> None:
        """An answer to nothing would be taken for that of the next request: a client that sent nothing gets none."""
        if 0 <= self._head_room < self._settings.max_head_bytes:
            self._refuse(self._all.too_slow)
        else:
            self.transport.close()

    def _refuse(self, response: bytes) -> None:
        self.transport.write(response)
        self.transport.close()


def _descriptors(wanted: int) -> int:
    """Raises this process's limit on descriptors to `wanted` if it can; returns how many may be connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or hard >= wanted:
        allowed = wanted
    else:
        allowed = hard
        log.warning("a worker has less than IEI_MAX_CONNECTIONS: its limit on open files is %d (ulimit -n)", hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, allowed - OTHER_DESCRIPTORS)
