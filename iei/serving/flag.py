"""A flag in memory that processes share."""

from __future__ import annotations

import mmap


class SharedFlag:
    """Set once, and seen by all processes that are forked after it was made."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Sets it for good."""
        self._byte[0] = 1

    @property
    def is_set(self) -> bool:
        """Whether any process has set it."""
        return self._byte[0] == 1
