"""Which requests are taken on: bounds on the inputs that are in work or waiting, over all requests of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from iei.access.quotas import SENDER
from iei.errors import EmptyInput, InvalidField, Overloaded
from iei.priority import PRIORITY, Priority
from iei.settings import RequestSettings


class Admission:
    """Counts the inputs of a worker by priority, from the arrival of their request until it is answered."""

    def __init__(self, settings: RequestSettings) -> None:
        self._settings = settings
        self._lines = {
            Priority.INTERACTIVE: _InWork(settings.max_queue, "inputs are in work already (IEI_MAX_QUEUE)"),
            Priority.BULK: _InWork(settings.bulk_queue, "inputs of bulk are in work already (IEI_MAX_QUEUE_BULK)"),
        }

    @contextmanager
    def admitted(self, count: int, field: str) -> Iterator[None]:
        """Takes on a request of `count` inputs for as long as the block runs. `field` is what the dialect calls them.

        Raises:
            EmptyInput: there are none.
            InvalidField: there are more than one request may have, here or with its API key.
            Overloaded: with those that are in work already, there are more than may wait, or than the request's API
                key may send now.
        """
        if not count:
            raise EmptyInput(f"{field} is empty: send at least one item", field)
        if count > self._settings.max_inputs:
            raise InvalidField(
                f"{field} has {count} items, over the limit of {self._settings.max_inputs} (IEI_MAX_INPUTS)", field
            )
        line = self._line_for(count)
        quota = SENDER.get()
        with quota.taken(count, field) if quota else nullcontext():
            line.inputs += count
            try:
                yield
            finally:
                line.inputs -= count

    def check(self) -> None:
        """What a request can be told before its body is read: that not even one input would be taken on.

        Raises:
            Overloaded: the line of its priority is full.
        """
        self._line_for(1)

    def _line_for(self, count: int) -> _InWork:
        line = self._lines[PRIORITY.get()]
        if line.inputs and line.inputs + count > line.most:
            raise Overloaded(f"{line.inputs} {line.message}: try again later")
        return line


@dataclass(slots=True)
class _InWork:
    """The inputs of one priority: bulk takes no places of what must not wait."""

    most: int
    message: str
    """That there are no places left."""
    inputs: int = 0
