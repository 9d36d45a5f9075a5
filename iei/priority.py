"""How urgent a request is: whether somebody waits for its answer, or it is one of very many that nobody waits for."""

from __future__ import annotations

from contextvars import ContextVar
from enum import IntEnum


class Priority(IntEnum):
    """The larger, the less urgent: of two that hold for a request, `max` is the one that it gets."""

    INTERACTIVE = 0
    BULK = 1

    @property
    def label(self) -> str:
        """What headers, keys and figures call it."""
        return self.name.lower()


BY_LABEL = {priority.label: priority for priority in Priority}
"""`interactive` and `bulk` → the priority."""

PRIORITY: ContextVar[Priority] = ContextVar("priority", default=Priority.INTERACTIVE)
"""Of the request that the current task works on. Whatever brings requests to the service sets it."""

BULK_SHARE = 0.75
"""Most that bulk may hold of what is handed out in a worker: downloads, decoded pixels, the arena."""
