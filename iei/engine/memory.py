"""Memory that a worker and an engine share: input arrays to the engine, outputs back, and nothing through a socket.

The worker creates it (`iei.engine.arena` divides it), and the engine maps the same file descriptor. It has no name, so
that the kernel frees it when the last process that maps it ends.
"""

from __future__ import annotations

import mmap
import os
import stat

import numpy as np
import numpy.typing as npt

from iei.machine import anonymous_memory


class Memory:
    """Anonymous memory that two processes share: a file descriptor, which it owns, and its mapping."""

    def __init__(self, fd: int, nbytes: int) -> None:
        """Maps `nbytes` of the open file `fd`, which `close` closes."""
        self.fd = fd
        self.nbytes = nbytes
        self._map = mmap.mmap(fd, nbytes)
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)

    @classmethod
    def create(cls, nbytes: int) -> Memory:
        """New memory, filled with zeros."""
        return cls(anonymous_memory("iei-arena", nbytes), nbytes)

    @classmethod
    def received(cls, fd: int, nbytes: int) -> Memory:
        """Maps memory that another process claims to have created. If that fails, `fd` stays the caller's.

        Raises:
            ValueError: `fd` is no file of at least `nbytes`, or it can't be mapped.
        """
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("the descriptor of an arena is not that of a file")
        if not 0 < nbytes <= status.st_size:  # reading a mapping beyond the end of its file ends the process: SIGBUS
            raise ValueError(f"an arena of {nbytes} bytes does not fit in a file of {status.st_size}")
        try:
            return cls(fd, nbytes)
        except (OSError, ValueError, OverflowError) as error:
            raise ValueError(f"an arena of {nbytes} bytes can't be mapped: {error}") from error

    def view(self, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """The range as uint8[nbytes], without a copy.

        Raises:
            ValueError: the range does not lie inside the memory.
        """
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise ValueError(f"bytes {offset}…{offset + nbytes} are outside an arena of {self.nbytes}")
        return self._bytes[offset : offset + nbytes]

    def close(self) -> None:
        """Closes the descriptor. The mapping is freed together with the last view of it."""
        os.close(self.fd)
