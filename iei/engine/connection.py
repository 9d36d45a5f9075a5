"""The engine's end of one worker: its socket, its arena, and the frames that wait until the socket takes them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from iei.engine.frames import FRAME_BYTES, Frame, FrameBuffer, Hello, Welcome, unpack
from iei.engine.memory import Memory

MAX_FDS = 253
"""The most descriptors that Linux passes with one message: all are received, so that all can be closed."""
RECEIVE_BYTES = 64 * 1024


Pin = Callable[[npt.NDArray[np.uint8]], Callable[[], None] | None]
"""Has a device copy from memory by itself, if it can; returns what undoes that."""


def no_pin(memory: npt.NDArray[np.uint8]) -> None:
    """A `Pin` that does nothing."""


class Connection:
    """One worker's connection. Closes the socket, the arena and every descriptor that the worker has sent."""

    def __init__(self, sock: socket.socket, welcome: Welcome, pin: Pin = no_pin) -> None:
        """Takes over `sock`, which must not block, and will answer its HELLO with `welcome` and `pin` its arena."""
        self.sock = sock
        self._welcome = welcome
        self._pin = pin
        self._unpin: Callable[[], None] | None = None
        self.pid = 0
        """Of the worker; 0 until its HELLO has arrived."""
        self.unanswered: set[int] = set()
        """Ids of the jobs that the worker has submitted and that have not been answered."""
        self._memory: Memory | None = None
        self._fds: list[int] = []
        """Descriptors that have arrived and do not belong to an arena yet."""
        self._hello = b""
        self._frames = FrameBuffer()
        self._unsent = bytearray()

    def receive(self) -> list[Frame] | None:
        """Frames that have arrived after the HELLO, which is answered here; None when the worker is gone.

        Raises:
            ValueError: the worker sent something that is no frame, or a HELLO without a usable arena.
            OSError: the socket failed; BlockingIOError if nothing has arrived.
        """
        if self._memory is None:
            return self._receive_hello()
        data = self.sock.recv(RECEIVE_BYTES)
        return [unpack(frame) for frame in self._frames.feed(data)] if data else None

    def _receive_hello(self) -> list[Frame] | None:
        """Collects the HELLO, which may arrive in pieces, and maps the arena once it is complete."""
        data, fds, _, _ = socket.recv_fds(self.sock, FRAME_BYTES - len(self._hello), MAX_FDS)
        self._fds += fds
        if not data:
            return None
        self._hello += data
        if len(self._hello) == FRAME_BYTES:
            hello = unpack(self._hello)
            if not isinstance(hello, Hello):
                raise ValueError(f"a connection must begin with HELLO, not with {type(hello).__name__}")
            if len(self._fds) != 1:
                raise ValueError(f"HELLO must come with the descriptor of one arena, not with {len(self._fds)}")
            self._memory = Memory.received(self._fds[0], hello.arena_bytes)
            self._fds.clear()
            self._unpin = self._pin(self._memory.view(0, self._memory.nbytes))
            self.pid = hello.pid
            self.send(self._welcome.pack())
        return []

    def send(self, frame: bytes) -> bool:
        """Sends a frame, now or, if the socket is full, with a later `flush`; returns whether nothing is left."""
        self._unsent += frame
        return self.flush()

    def flush(self) -> bool:
        """Sends what the socket takes; returns whether nothing is left. That a worker is gone, `receive` will tell."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._unsent:
                del self._unsent[: self.sock.send(self._unsent)]
        return not self._unsent

    def region(self, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """A range of the arena as uint8[nbytes], without a copy.

        Raises:
            ValueError: the range does not lie inside the arena.
        """
        assert self._memory is not None
        return self._memory.view(offset, nbytes)

    def close(self) -> None:
        """Closes the socket and every descriptor. The arena is unmapped with the last view of it.

        No input in it may be in work.
        """
        if self._unpin:
            self._unpin()
        self.sock.close()
        for fd in self._fds:
            os.close(fd)
        if self._memory:
            self._memory.close()
