"""A worker's shared memory: input arrays to the engine, outputs back, with nothing copied through a socket.

The worker creates and divides it; the engine maps the same file descriptor. The memory has no name, so that the kernel
frees it when the last process that maps it ends. The lowest free offset is always used first: pages that were never
written to take no memory.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import stat
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from iei.line import Line
from iei.machine import anonymous_memory
from iei.priority import BULK_SHARE, Priority


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


class Allocator:
    """First fit over a sorted list of free ranges; a range that is released is joined with its free neighbours."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._free: list[tuple[int, int]] = [(0, nbytes)]
        self._taken: dict[int, int] = {}

    @property
    def held(self) -> int:
        """Bytes that are taken."""
        return sum(self._taken.values())

    def allocate(self, nbytes: int) -> int | None:
        """Takes the lowest range of `nbytes` that is free; returns its offset, or None if there is none."""
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
        """Frees the range that `allocate` returned as `offset`."""
        length = self._taken.pop(offset)
        index = bisect_left(self._free, (offset, 0))
        if index < len(self._free) and offset + length == self._free[index][0]:
            length += self._free.pop(index)[1]
        if index and sum(self._free[index - 1]) == offset:
            index -= 1
            offset, before = self._free.pop(index)
            length += before
        self._free.insert(index, (offset, length))


class _Wish(NamedTuple):
    """A range that somebody waits for."""

    nbytes: int
    priority: Priority
    offset: asyncio.Future[int]


class Arena:
    """Shared memory and its allocator, for the tasks of one event loop."""

    def __init__(self, nbytes: int) -> None:
        self.memory = Memory.create(nbytes)
        self._allocator = Allocator(nbytes)
        self._waiting: Line[_Wish] = Line()
        self._bulk: dict[int, int] = {}
        """Ranges that bulk has: offset → size."""
        self._bulk_bytes = 0

    @property
    def held(self) -> int:
        """Bytes that are reserved."""
        return self._allocator.held

    async def reserve(self, nbytes: int, priority: Priority = Priority.INTERACTIVE) -> int:
        """The offset of a range of `nbytes`, which is the caller's until `release`.

        Waits while the arena is full, in a line of its priority. Bulk also waits while it has its share: the rest is
        for what must not wait.

        Raises:
            ValueError: `nbytes` is more than the size of the whole arena.
        """
        if nbytes > self.memory.nbytes:
            raise ValueError(f"{nbytes} bytes do not fit in an arena of {self.memory.nbytes} (IEI_ARENA_BYTES)")
        if not self._waiting and (offset := self._allocate(nbytes, priority)) is not None:
            return offset
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.add(_Wish(nbytes, priority, future), priority)
        self._serve_waiting()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # served and cancelled in the same turn of the loop
                self.release(future.result())
            self._serve_waiting()
            raise

    def release(self, offset: int) -> None:
        """Gives the range at `offset` back, and serves those who wait."""
        self._allocator.release(offset)
        self._bulk_bytes -= self._bulk.pop(offset, 0)
        if self._waiting:
            self._serve_waiting()

    def _serve_waiting(self) -> None:
        while wish := self._waiting.first(bulk=(has_room := self._has_bulk_room)):
            if not wish.offset.done():  # whoever waited may have given up
                offset = self._allocate(wish.nbytes, wish.priority)
                if offset is None:
                    return
                wish.offset.set_result(offset)
            self._waiting.take(bulk=has_room)

    def _allocate(self, nbytes: int, priority: Priority) -> int | None:
        if priority is Priority.INTERACTIVE:
            return self._allocator.allocate(nbytes)
        offset = self._allocator.allocate(nbytes) if self._has_bulk_room else None
        if offset is not None:
            self._bulk[offset] = nbytes
            self._bulk_bytes += nbytes
        return offset

    @property
    def _has_bulk_room(self) -> bool:
        """Whether bulk may have more. Its last range may exceed its share: or else a large one could never be had."""
        return self._bulk_bytes < BULK_SHARE * self.memory.nbytes

    def close(self) -> None:
        """Closes the memory's descriptor."""
        self.memory.close()
