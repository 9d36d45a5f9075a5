"""Which requests are taken on: a bound on the inputs that are in work or waiting, over all requests of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from iei.access.quotas import SENDER
from iei.errors import EmptyInput, InvalidField, Overloaded
from iei.settings import RequestSettings


class Admission:
    """Counts the inputs of a worker, from the arrival of their request until it is answered."""

    def __init__(self, settings: RequestSettings) -> None:
        self._settings = settings
        self._in_work = 0

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
        if self._in_work and self._in_work + count > self._settings.max_queue:
            raise Overloaded(f"{self._in_work} inputs are in work already (IEI_MAX_QUEUE): try again later")
        quota = SENDER.get()
        with quota.taken(count, field) if quota else nullcontext():
            self._in_work += count
            try:
                yield
            finally:
                self._in_work -= count
