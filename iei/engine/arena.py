"""A worker's shared memory: pixels to the engine, vectors back, with nothing copied through a socket.

The worker creates and divides it; the engine maps the same file descriptor. It has no name, so there is nothing to
clean up whoever dies. Offsets are handed out lowest first: pages that were never needed are never taken.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import tempfile
from bisect import bisect_left
from collections import deque

import numpy as np
import numpy.typing as npt


class Memory:
    """Anonymous memory that two processes share: a file descriptor and its mapping."""

    def __init__(self, fd: int, nbytes: int) -> None:
        self.fd = fd
        self.nbytes = nbytes
        self._map = mmap.mmap(fd, nbytes)
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)

    @classmethod
    def create(cls, nbytes: int) -> Memory:
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("iei-arena")
        else:  # macOS: an unlinked temporary file does the same work
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, nbytes)
        return cls(fd, nbytes)

    def view(self, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """uint8[nbytes], no copy.

        Raises:
            ValueError: the range does not lie inside the memory.
        """
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise ValueError(f"bytes {offset}…{offset + nbytes} are outside an arena of {self.nbytes}")
        return self._bytes[offset : offset + nbytes]

    def close(self) -> None:
        """Gives up the descriptor. The mapping goes when the last view of it does."""
        os.close(self.fd)


class Allocator:
    """First fit over a sorted list of free ranges; neighbours are joined when they come back."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._free: list[tuple[int, int]] = [(0, nbytes)]
        self._taken: dict[int, int] = {}

    def allocate(self, nbytes: int) -> int | None:
        """Lowest offset with `nbytes` free, or None."""
        for index, (offset, length) in enumerate(self._free):
            if length >= nbytes:
                if length == nbytes:
                    del self._free[index]
                else:
                    self._free[index] = (offset + nbytes, length - nbytes)
                self._taken[offset] = nbytes
                return offset
        return None

    def release(self, offset: int) -> None:
        length = self._taken.pop(offset)
        index = bisect_left(self._free, (offset, 0))
        if index < len(self._free) and offset + length == self._free[index][0]:
            length += self._free.pop(index)[1]
        if index and sum(self._free[index - 1]) == offset:
            index -= 1
            offset, before = self._free.pop(index)
            length += before
        self._free.insert(index, (offset, length))


class Arena:
    """Memory plus who has which part of it. Lives on one event loop."""

    def __init__(self, nbytes: int) -> None:
        self.memory = Memory.create(nbytes)
        self._allocator = Allocator(nbytes)
        self._waiting: deque[tuple[int, asyncio.Future[int]]] = deque()

    async def reserve(self, nbytes: int) -> int:
        """Offset of `nbytes` that are the caller's until `release`. Waits its turn while the arena is full.

        Raises:
            ValueError: more than the whole arena is asked for.
        """
        if nbytes > self.memory.nbytes:
            raise ValueError(f"{nbytes} bytes do not fit an arena of {self.memory.nbytes} (IEI_ARENA_BYTES)")
        if not self._waiting and (offset := self._allocator.allocate(nbytes)) is not None:
            return offset
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((nbytes, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # given and given up in the same turn of the loop
                self.release(future.result())
            self._serve_waiting()
            raise

    def release(self, offset: int) -> None:
        self._allocator.release(offset)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._waiting:
            nbytes, future = self._waiting[0]
            if not future.done():
                offset = self._allocator.allocate(nbytes)
                if offset is None:
                    return
                future.set_result(offset)
            self._waiting.popleft()

    def close(self) -> None:
        self.memory.close()
