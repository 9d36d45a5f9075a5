"""The threads in which inputs are decoded and tokenized, and the line in front of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from iei.line import Line
from iei.priority import PRIORITY

T = TypeVar("T")


class _Work(NamedTuple):
    future: asyncio.Future[Any]
    call: Callable[[], Any]


class DecodeThreads:
    """A pool of threads that serves interactive requests before bulk.

    The pool itself is first come, first served. So what it is given is not the work, but the order to do whatever is
    first in the line by then.

    Args:
        count: how many. They also bound what is done for clients that have disconnected.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="decoder")
        self._line: Line[_Work] = Line()
        self._lock = threading.Lock()

    def run(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """What `function` will have returned or raised, in a thread. Its priority is that of the current request."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._line.add(_Work(future, partial(function, *arguments)), PRIORITY.get())
        self._pool.submit(self._do_next)
        return future

    def stop(self) -> None:
        """Cancels what has not begun. Does not wait for what has."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            while self._line:
                self._line.take().future.cancel()

    def _do_next(self) -> None:
        with self._lock:
            if not self._line:  # `stop` was faster
                return
            future, call = self._line.take()
        try:
            if not future.cancelled():
                _tell(future, future.set_result, call())
        except BaseException as error:
            _tell(future, future.set_exception, error)
        finally:
            del future, call  # the traceback of an error would keep the whole input alive


def _tell(future: asyncio.Future[Any], tell: Callable[[Any], None], outcome: object) -> None:
    """Has the event loop of `future` call `tell`, unless nobody waits any more."""

    def on_the_loop() -> None:
        if not future.done():
            tell(outcome)

    future.get_loop().call_soon_threadsafe(on_the_loop)
