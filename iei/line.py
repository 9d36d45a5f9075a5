"""Who waits, and who goes first: interactive before bulk, but never so often in a row that bulk would starve."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from iei.priority import Priority

T = TypeVar("T")

PATIENCE = 8
"""How often in a row bulk lets interactive go first: under any load, it gets one turn in nine."""


class Patience:
    """Counts how often the first of bulk has been passed over.

    Age is counted in turns, and not in seconds: all of a long bulk queue is old, and would go before every newcomer.
    """

    def __init__(self) -> None:
        self._passed = 0

    @property
    def is_over(self) -> bool:
        """Whether it is bulk's turn, whoever else waits."""
        return self._passed >= PATIENCE

    def note(self, *, passed_over: bool) -> None:
        """Counts a turn, after which the first of bulk still waits (`passed_over`) or not."""
        self._passed = self._passed + 1 if passed_over else 0


class Line(Generic[T]):
    """A waiting line for what is handed out one by one. Each priority is served first come, first served."""

    def __init__(self) -> None:
        self._lines: dict[Priority, deque[T]] = {priority: deque() for priority in Priority}
        self._patience = Patience()

    def __bool__(self) -> bool:
        return any(self._lines.values())

    def add(self, item: T, priority: Priority) -> None:
        """Puts `item` at the end of its priority's line."""
        self._lines[priority].append(item)

    def first(self, *, bulk: bool = True) -> T | None:
        """Who is served next; None if nobody is.

        Args:
            bulk: False: bulk has all that it may have now. Whoever is served meanwhile does not try its patience.
        """
        line = self._lines[self._turn(bulk)]
        return line[0] if line else None

    def take(self, *, bulk: bool = True) -> T:
        """Takes the one out of the line that `first` shows. There must be one."""
        turn = self._turn(bulk)
        item = self._lines[turn].popleft()
        if bulk:
            self._patience.note(passed_over=turn is Priority.INTERACTIVE and bool(self._lines[Priority.BULK]))
        return item

    def _turn(self, bulk: bool) -> Priority:
        waits = bulk and bool(self._lines[Priority.BULK])
        is_bulks = waits and (self._patience.is_over or not self._lines[Priority.INTERACTIVE])
        return Priority.BULK if is_bulks else Priority.INTERACTIVE
