"""The engine's end of one worker: its socket, its arena, and the frames that wait for room in the socket."""

from __future__ import annotations

import contextlib
import socket

import numpy as np
import numpy.typing as npt

from iei.engine.arena import Memory
from iei.engine.frames import FRAME_BYTES, WELCOME, FrameBuffer, Hello


class Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pid = 0
        self.memory: Memory | None = None
        self._frames = FrameBuffer()
        self._unsent = bytearray()

    def receive(self) -> list[bytes] | None:
        """Frames that have arrived; None when the worker is gone. The first is its HELLO, answered here."""
        if self.memory is None:
            data, fds, _, _ = socket.recv_fds(self.sock, FRAME_BYTES, 1)
            if not data:
                return None
            hello = Hello.unpack(data)
            self.memory, self.pid = Memory(fds[0], hello.arena_bytes), hello.pid
            self.send(WELCOME)
            return []
        data = self.sock.recv(64 * 1024)
        return list(self._frames.feed(data)) if data else None

    def send(self, frame: bytes) -> None:
        self._unsent += frame
        self.flush()

    def flush(self) -> bool:
        """Sends what the socket takes; whether that was all. A worker that is gone is found out by `receive`."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._unsent:
                del self._unsent[: self.sock.send(self._unsent)]
        return not self._unsent

    def region(self, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        assert self.memory is not None
        return self.memory.view(offset, nbytes)

    def close(self) -> None:
        self.sock.close()
        if self.memory:
            self.memory.close()
