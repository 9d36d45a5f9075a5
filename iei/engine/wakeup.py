"""How threads wake the one that waits for them in a selector."""

from __future__ import annotations

import os
import weakref


class Wakeup:
    """A pipe with a byte for each thing that a thread has done. It is closed when nobody has it any more."""

    def __init__(self) -> None:
        self.fd, self._other_end = os.pipe()
        """`fd` is readable while there are bytes."""
        weakref.finalize(self, _close, self.fd, self._other_end).atexit = False  # threads may be about to write

    def put(self) -> None:
        """Adds a byte. For any thread."""
        os.write(self._other_end, b"\0")

    def take(self, most: int = 1) -> None:
        """Takes up to as many bytes as `most`; waits for one, if there is none."""
        os.read(self.fd, most)


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
