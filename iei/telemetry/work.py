"""The inputs of one request, from its admission until each of them is done."""

from __future__ import annotations

from types import TracebackType

from iei.models.spec import Modality
from iei.priority import Priority
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import FAILED, IN_WORK, INPUTS


class Work:
    """Counts inputs as in work while the block runs, each until it is done.

    Args:
        counters: where they are counted.
        model: its served name.
        priority: of the request.
        count: of its inputs.
    """

    def __init__(self, counters: Counters, model: str, priority: Priority, count: int) -> None:
        self._counters = counters
        self._labels = model, priority.label
        self._left = count

    def __enter__(self) -> Work:
        self._counters.add(IN_WORK, self._labels, self._left)
        return self

    def computed(self, modality: Modality) -> None:
        """One input has its vectors."""
        model, priority = self._labels
        self._counters.add(INPUTS, (model, modality, priority))
        self._counters.add(IN_WORK, self._labels, -1)
        self._left -= 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is left was not computed: the request is over."""
        if self._left:
            self._counters.add(FAILED, self._labels, self._left)
            self._counters.add(IN_WORK, self._labels, -self._left)
