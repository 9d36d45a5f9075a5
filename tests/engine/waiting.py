"""Waiting for what can be observed, instead of sleeping for as long as it might take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LIMIT_S = 20.0


async def until(condition: Callable[[], bool]) -> None:
    """Waits until `condition` holds, for at most `LIMIT_S`."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread or process
            await asyncio.sleep(0.005)


def waited(value: Callable[[], T]) -> T:
    """The first true `value`, which another thread or process is about to make; the last one after `LIMIT_S`."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := value()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return found


def in_time() -> float:
    """A deadline in `time.monotonic()` that nothing misses unless it hangs."""
    return time.monotonic() + LIMIT_S
