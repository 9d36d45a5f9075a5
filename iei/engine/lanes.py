"""Batches that a CPU computes side by side, each in a thread and on a part of the cores.

A batch that is split among cores is done when the slowest of them is, and the others wait: decoders, and a host that
takes a core away, slow one down more than another. Batches that are begun and finished each by itself leave nothing to
wait for: whatever is done takes the next inputs.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from iei.engine.batcher import Job
from iei.engine.execute import Outcome
from iei.engine.in_flight import Landed
from iei.engine.watchdog import Timer
from iei.models.spec import ModelSpec

P = TypeVar("P")

MOST = 4096
"""Threads at most: each is begun when a batch has none, so there are as many as batches were computed at a time."""


@dataclass(slots=True, eq=False)
class _Flight(Generic[P]):
    jobs: list[Job[P]]
    spec: ModelSpec
    began: float
    shared_began: float
    outcomes: Future[list[Outcome]] = field(default_factory=Future)
    gone: set[Hashable] = field(default_factory=set)


class Lanes(Generic[P]):
    """The batches that are computed. All methods are for one thread."""

    def __init__(self, timer: Timer) -> None:
        """None are computed. `timer` limits how long each may take."""
        self._timer = timer
        self._threads = ThreadPoolExecutor(MOST, thread_name_prefix="lane")
        self._flights: list[_Flight[P]] = []
        """In the order in which they were begun."""
        self._capacity = 0
        self._landed: deque[_Flight[P]] = deque()
        self._landings = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        self._shared = 0.0
        """Seconds in which something was computed, of which each of several batches has its share, until `_counted`."""
        self._counted = 0.0

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def wakeup(self) -> int:
        """A file descriptor, readable while a batch is done that is not finished."""
        return self._landings

    @property
    def inputs(self) -> int:
        """Of all batches."""
        return sum(len(flight.jobs) for flight in self._flights)

    @property
    def is_full(self) -> bool:
        """Whether no other batch may be begun."""
        return 0 < self._capacity <= len(self._flights)

    @property
    def is_done(self) -> bool:
        """Whether a batch can be finished without waiting for it."""
        return bool(self._landed)

    def begin(self, jobs: list[Job[P]], compute: Callable[[], list[Outcome]], spec: ModelSpec, capacity: int) -> None:
        """Begins a batch.

        Args:
            jobs: of the batch.
            compute: called in a thread.
            spec: of the model that computes it.
            capacity: how many batches may be computed now, this one included.
        """
        now = time.monotonic()
        self._count(now)
        flight = _Flight(jobs, spec, now, self._shared)
        self._flights.append(flight)
        self._capacity = capacity
        self._timer.start(self._flights[0].began)
        flight.outcomes = self._threads.submit(compute)
        flight.outcomes.add_done_callback(lambda _: self._land(flight))

    def finish(self) -> Landed[P]:
        """Waits for any batch; there must be one.

        Raises:
            DeviceLost: this process can't compute any more.
        """
        os.eventfd_read(self._landings)
        flight = self._landed.popleft()
        now = time.monotonic()
        self._count(now)
        self._flights.remove(flight)
        if self._flights:
            self._timer.start(self._flights[0].began)
        else:
            self._capacity = 0
            self._timer.stop()
        outcomes = flight.outcomes.result()
        seconds, device_s = now - flight.began, self._shared - flight.shared_began
        return Landed(flight.jobs, flight.spec, outcomes, flight.gone, flight.began, seconds, device_s)

    def forget(self, owner: Hashable) -> None:
        """Notes that nobody waits for the owner's jobs any more."""
        for flight in self._flights:
            flight.gone.add(owner)

    def _land(self, flight: _Flight[P]) -> None:
        """Called in the thread of the batch."""
        self._landed.append(flight)
        os.eventfd_write(self._landings, 1)

    def _count(self, now: float) -> None:
        if self._flights:
            self._shared += (now - self._counted) / len(self._flights)
        self._counted = now
