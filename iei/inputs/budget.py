"""A limit on the pixels that a process decodes at the same time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext


class PixelBudget:
    """A weighted semaphore over pixels, first come, first served.

    A limit on threads alone does not bound memory: eight threads with 50 MP each use 1.6 GB. An image larger than the
    whole budget waits until no other is being decoded. Smaller images never overtake it, so it can't starve.

    Args:
        pixels: the limit.
        of: the budget of which this is a share: what is held here is held there, too.
    """

    def __init__(self, pixels: int, of: PixelBudget | None = None) -> None:
        self._limit = pixels
        self._of = of
        self._held = 0
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        """Pixels that are being decoded now."""
        return self._held

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Takes `pixels` from the budget, blocking the thread until they are free; returns them at the end."""
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            try:
                self._changed.wait_for(lambda: self._line[0] is ticket and self._has_room(pixels))
                self._held += pixels
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()
        try:
            with self._of.hold(pixels) if self._of else nullcontext():
                yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()

    def _has_room(self, pixels: int) -> bool:
        return self._held == 0 or self._held + pixels <= self._limit
