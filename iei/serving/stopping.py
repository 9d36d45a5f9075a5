"""How a worker stops: it drains, closes its port, finishes what it has accepted, and only then ends.

SIGTERM begins that. SIGINT and SIGQUIT, which gunicorn's master sends for Ctrl-C, skip the first step and cut the
others short.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import struct
from collections.abc import Callable

from uvicorn import Server

from iei.serving.accepting import Acceptor
from iei.serving.connections import Connections
from iei.serving.flag import SharedFlag
from iei.settings import ServerSettings

log = logging.getLogger(__name__)

QUICK_S = 1.0
"""What accepted requests get when the server has to stop at once."""


class Stopping:
    """Stops one worker. Takes the signals over from uvicorn.

    Args:
        server: uvicorn's, which runs this worker.
        connections: of this worker.
        settings: how long each step may take.
        is_last: whether the whole server stops, and not only this worker; None if nobody can tell, and then it counts
            as that.
        announce: makes readiness checks fail.
    """

    def __init__(
        self,
        server: Server,
        connections: Connections,
        settings: ServerSettings,
        is_last: SharedFlag | None,
        announce: Callable[[], None],
    ) -> None:
        self.grace_s: float = settings.graceful_timeout_s
        """What accepted requests may take after `port_closed`."""
        self.port_closed = asyncio.Event()
        self._server = server
        self._server.config.timeout_graceful_shutdown = settings.graceful_timeout_s
        self._connections = connections
        self._drain_s = settings.drain_s
        self._is_last = is_last
        self._announce = announce

    def take_signals(self) -> None:
        """From now on, signals to this process do as the module says."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain)
        for number in (signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self._stop_at_once)
        if self._is_last and self._is_last.is_set:  # a signal to a worker that has just been forked is lost in gunicorn
            self._stop_at_once()

    def _drain(self) -> None:
        if self._connections.is_draining or self.port_closed.is_set():
            return
        if not self._drain_s:
            return self._close_port()
        self._connections.drain()
        if self._is_last is None or self._is_last.is_set:
            self._announce()  # a worker that is only replaced is no reason to send requests elsewhere
        asyncio.get_running_loop().call_later(self._drain_s, self._close_port)

    def _close_port(self) -> None:
        if self.port_closed.is_set():
            return
        for listener in self._listeners():
            if self._is_last and self._is_last.is_set:
                _refuse_handshakes(listener)  # it is the same socket in all workers
            self._accept_waiting(listener)
        for each in self._servers:
            each.close()
        self._end()

    def _stop_at_once(self) -> None:
        self.grace_s = self._server.config.timeout_graceful_shutdown = QUICK_S  # type: ignore[assignment]
        self._connections.is_draining = False
        self._end()

    def _end(self) -> None:
        self.port_closed.set()
        self._server.should_exit = True

    @property
    def _servers(self) -> list[asyncio.Server | Acceptor]:
        """What listens; nothing yet while the worker starts, which is when uvicorn has no such list."""
        return getattr(self._server, "servers", [])

    def _listeners(self) -> list[socket.socket]:
        sockets = [sock for each in self._servers for sock in each.sockets]
        return [socket.socket(fileno=os.dup(sock.fileno())) for sock in sockets]

    def _accept_waiting(self, listener: socket.socket) -> None:
        """Serves those who have connected already: the kernel resets who waits at a port that closes."""
        server = self._server
        with listener:
            listener.setblocking(False)
            try:
                while True:
                    client, _ = listener.accept()
                    connection = self._connections.protocol(server.config, server.server_state, server.lifespan.state)
                    self._connections.take(client, connection)
            except OSError:  # BlockingIOError: that were all
                return


_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of TCP's flags
    (0x15, 0, 1, 0x02),  # nothing but SYN?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # pass it
)
"""Classic BPF, as (code, jump if true, jump if false, operand): https://docs.kernel.org/networking/filter.html."""
_SO_ATTACH_FILTER = 26


def _refuse_handshakes(listener: socket.socket) -> None:
    """From now on nobody new connects, while those who have begun to can finish.

    Without it, a client could connect between the last `accept` and `close`, and its request would be lost. The client
    sends its SYN again after a second, and is refused by then. Some kernels grant it to CAP_NET_ADMIN only.
    """
    if listener.family == socket.AF_UNIX:
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(_DROP_SYN), ctypes.addressof(program))
        )
    except OSError as error:  # the port closes all the same: only whoever connects within these microseconds is lost
        log.info("no filter for the port that closes: %s", error)
