"""How a worker divides its shared memory among its jobs.

The lowest free offset is always used first: pages that were never written to take no memory.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import NamedTuple

from iei.engine.memory import Memory
from iei.line import Line
from iei.priority import BULK_SHARE, Priority


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
