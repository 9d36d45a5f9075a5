"""In which order the decoding threads take what waits for them."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from iei.inputs.threads import DecodeThreads
from iei.line import PATIENCE
from iei.priority import PRIORITY, Priority

INTERACTIVE, BULK = Priority


class Blocked:
    """One thread that is busy until `go`, with a note of what it has done since."""

    def __init__(self) -> None:
        self.threads = DecodeThreads(1)
        self.done: list[str] = []
        self.go = threading.Event()
        self._busy = threading.Event()

    async def begin(self) -> asyncio.Future[None]:
        def block() -> None:
            self._busy.set()
            assert self.go.wait(20)

        blocker = self.threads.run(block)
        await asyncio.to_thread(self._busy.wait, 20)
        return blocker

    def wait_for(self, name: str, priority: Priority) -> asyncio.Future[None]:
        """What will be done when the thread is free."""
        before = PRIORITY.set(priority)
        waiting = self.threads.run(self.done.append, name)
        PRIORITY.reset(before)
        return waiting


def test_what_is_urgent_overtakes_bulk_which_does_not_starve() -> None:
    async def scenario() -> None:
        thread = Blocked()
        tasks = [await thread.begin()]
        tasks += [thread.wait_for(name, BULK) for name in "xyz"]
        tasks += [thread.wait_for(name, INTERACTIVE) for name in "abcdefghij"]
        thread.go.set()
        await asyncio.gather(*tasks)
        assert PATIENCE == 8
        assert "".join(thread.done) == "abcdefghxijyz"
        thread.threads.stop()

    asyncio.run(scenario())


def test_what_nobody_waits_for_is_not_done() -> None:
    async def scenario() -> None:
        thread = Blocked()
        tasks = [await thread.begin(), *[thread.wait_for(name, BULK) for name in "xyz"]]
        tasks[2].cancel()
        thread.go.set()
        await asyncio.wait(tasks)
        assert thread.done == ["x", "z"]
        thread.threads.stop()

    asyncio.run(scenario())


def test_stopping_cancels_what_has_not_begun() -> None:
    async def scenario() -> None:
        thread = Blocked()
        blocker = await thread.begin()
        waiting = thread.wait_for("x", BULK)
        thread.threads.stop()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        thread.go.set()
        await blocker
        assert thread.done == []

    asyncio.run(scenario())


class Input:
    """What a thread is given, perhaps very large."""


def fail(content: Input) -> None:
    raise ValueError("damaged")


def test_an_error_is_raised_and_keeps_the_input_no_longer_than_itself() -> None:
    async def failed(threads: DecodeThreads) -> Callable[[], Input | None]:
        content = Input()
        with pytest.raises(ValueError, match="damaged"):
            await threads.run(fail, content)
        return weakref.ref(content)

    async def scenario() -> None:
        threads = DecodeThreads(1)
        gc.disable()
        try:
            content = await failed(threads)
            assert await threads.run(lambda: 1) == 1  # the thread has let go of what it did before
            assert content() is None
        finally:
            gc.enable()
            threads.stop()

    asyncio.run(scenario())
