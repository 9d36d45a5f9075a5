"""Signals to a process that still loads its models."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGINT end this process at once while the block runs.

    To a process with id 1, as in a container, the kernel delivers only signals that have a handler. Python's own
    for SIGINT would unwind, and wait for threads, before it ends. The engines notice that this process is gone.
    """
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)  # the status that shells show for a process that a signal has ended
