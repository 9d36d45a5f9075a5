"""Rows of a table that the processes of a server share: which process has which, and who is still alive.

A process locks its row for its whole life. The kernel releases the locks of a process that ends, however it ends: a row
that nobody has locked was left by one that is gone, and may be taken over. Locks on files belong to processes, not to
threads; closing any descriptor of the file in a process releases all of its locks.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Rows:
    """The locks of a table.

    Args:
        fd: of a file that all processes have inherited or been passed. Bytes of it are locked; it may be empty.
        count: how many rows there are. The byte after them guards what is changed by one process at a time.
    """

    def __init__(self, fd: int, count: int) -> None:
        self._fd = fd
        self._count = count
        self._owner = 0
        self._row = -1
        self._threads = threading.RLock()
        self._depth = 0

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Only one thread of one process is inside. May be nested."""
        with self._threads:
            if not self._depth:
                fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, self._count)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._count)

    def claim(self, candidates: Iterable[int]) -> int | None:
        """The first of the candidates that no living process has; it is this one's from now on. None: all are taken.

        To be called inside `exclusive`, once in each process.
        """
        self._row = next((row for row in candidates if self._try(row)), -1)
        self._owner = os.getpid()
        return self._row if self._row >= 0 else None

    @property
    def own(self) -> int | None:
        """The row that this process has claimed."""
        return self._row if self._owner == os.getpid() and self._row >= 0 else None

    def is_alive(self, row: int) -> bool:
        """Whether a living process has the row. To be called inside `exclusive`: asking means trying to lock it."""
        if row == self.own:
            return True
        if self._try(row):
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, row)
            return False
        return True

    def _try(self, row: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
        except OSError:
            return False
        return True
