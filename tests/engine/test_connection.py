"""The engine's end of a connection, without an engine."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from iei.engine.connection import Connection
from iei.engine.frames import Hello, Welcome

ARENA = 4096


def test_an_arena_is_pinned_while_its_worker_is_connected() -> None:
    pinned: list[npt.NDArray[np.uint8]] = []

    def pin(memory: npt.NDArray[np.uint8]) -> Callable[[], None]:
        pinned.append(memory)
        return pinned.clear

    ours, theirs = socket.socketpair()
    fd = os.memfd_create("arena")
    os.ftruncate(fd, ARENA)
    with theirs:
        connection = Connection(ours, Welcome(), pin)
        socket.send_fds(theirs, [Hello(ARENA, 1).pack()], [fd])
        assert connection.receive() == []
        (memory,) = pinned
        assert memory.nbytes == ARENA
        os.pwrite(fd, b"\x07", ARENA - 1)
        assert memory[-1] == 7
        connection.close()
        assert not pinned
    os.close(fd)


@pytest.mark.parametrize("has_arena", [True, False])
def test_what_was_not_pinned_is_not_unpinned(has_arena: bool) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        connection = Connection(ours, Welcome(), lambda memory: None)
        if has_arena:
            fd = os.memfd_create("arena")
            os.ftruncate(fd, ARENA)
            socket.send_fds(theirs, [Hello(ARENA, 1).pack()], [fd])
            os.close(fd)
            connection.receive()
        connection.close()
        assert ours.fileno() < 0
