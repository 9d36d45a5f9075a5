"""Work on many things side by side, and their results in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

PULLED = 32
"""Items that are taken from a source at a time: a trip to a thread costs more than most items."""


@asynccontextmanager
async def in_order(
    coming: AsyncGenerator[T],
    work: Callable[[T], Awaitable[R]],
    most: int,
    *,
    weight: Callable[[T], int] = lambda each: 0,
    heaviest: int = 0,
) -> AsyncIterator[AsyncGenerator[R]]:
    """What `work` returns for each of `coming`, in its order. What is in work is cancelled where the block is left.

    Args:
        coming: is read ahead, but never so far that over `most` are in work or wait to be taken; closed at the end.
        work: what it raises, and what `coming` raises, is raised in its turn.
        most: at least 1.
        weight: of one of `coming`, for as long as it is in work.
        heaviest: no more are taken while those in work weigh more than this.
    """
    turns: asyncio.Queue[asyncio.Task[R] | None] = asyncio.Queue()
    free = asyncio.Semaphore(most)
    in_work: dict[asyncio.Task[R], int] = {}
    changed = asyncio.Event()

    def done(task: asyncio.Task[R]) -> None:
        del in_work[task]
        changed.set()

    async def read() -> None:
        try:
            await free.acquire()
            async with aclosing(coming):
                async for each in coming:
                    task = asyncio.create_task(_awaited(work, each))
                    in_work[task] = weight(each)
                    task.add_done_callback(done)
                    turns.put_nowait(task)
                    await free.acquire()
                    while sum(in_work.values()) > heaviest:
                        changed.clear()
                        await changed.wait()
        finally:
            turns.put_nowait(None)

    async def results() -> AsyncGenerator[R]:
        while task := await turns.get():
            result = await task
            free.release()
            yield result
        await reader

    reader = asyncio.create_task(read())
    try:
        async with aclosing(results()) as stream:
            yield stream
    finally:
        for task in (reader, *in_work):
            task.cancel()
        await asyncio.gather(reader, *in_work, return_exceptions=True)


async def _awaited(work: Callable[[T], Awaitable[R]], each: T) -> R:
    return await work(each)


async def pulled(source: Iterable[T]) -> AsyncGenerator[T]:
    """What `source` has, taken from it in threads: it may read files."""
    coming = iter(source)
    while some := await asyncio.to_thread(_some, coming):
        for each in some:
            yield each


def _some(coming: Iterator[T]) -> list[T]:
    return list(islice(coming, PULLED))
