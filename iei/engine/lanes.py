"""Batches that a CPU computes side by side, each in a thread and on a part of the cores.

A batch that is split among cores is done when the slowest of them is, and the others wait: decoders, and a host that
takes a core away, slow one down more than another. Batches that are begun and finished each by itself leave nothing to
wait for: whatever is done takes the next inputs.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

from iei.engine.batcher import Job
from iei.engine.execute import Outcome
from iei.engine.in_flight import Landed
from iei.engine.wakeup import Wakeup
from iei.engine.watchdog import Timer
from iei.models.spec import ModelSpec

P = TypeVar("P")

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Flight(Generic[P]):
    jobs: list[Job[P]]
    spec: ModelSpec
    compute: Callable[[], list[Outcome]]
    began: float
    shared_began: float
    outcomes: list[Outcome] = field(default_factory=list)
    error: BaseException | None = None
    gone: set[Hashable] = field(default_factory=set)

    def run(self) -> None:
        """Never raises: who finishes it does."""
        try:
            self.outcomes = self.compute()
        except BaseException as error:
            self.error = error


class Lanes(Generic[P]):
    """The batches that are computed. All methods are for one thread."""

    def __init__(self, timer: Timer) -> None:
        """None are computed. `timer` limits how long each may take, with its halves if it fails."""
        self.last_s = 0.0
        """How long the batch took that was finished last."""
        self._timer = timer
        self._landings = _Landings[P]()
        self._crew = _Crew(self._landings)
        self._flights: list[_Flight[P]] = []
        """In the order in which they were begun."""
        self._capacity = 0
        self._shared = 0.0
        """Seconds in which something was computed, of which each of several batches has its share, until `_counted`."""
        self._counted = 0.0

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def wakeup(self) -> int:
        """A file descriptor, readable while a batch is done that is not finished."""
        return self._landings.fd

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
        return len(self._landings) > 0

    def begin(self, jobs: list[Job[P]], compute: Callable[[], list[Outcome]], spec: ModelSpec, capacity: int) -> None:
        """Begins a batch.

        Args:
            jobs: of the batch.
            compute: called in a thread; or in this one, while none can be started.
            spec: of the model that computes it.
            capacity: how many batches may be computed now, this one included.
        """
        now = time.monotonic()
        self._count(now)
        flight = _Flight(jobs, spec, compute, now, self._shared)
        self._flights.append(flight)
        self._capacity = capacity
        self._timer.start(self._flights[0].began)
        self._crew.take(flight, threads=len(self._flights))

    def finish(self) -> Landed[P]:
        """Waits for any batch; there must be one.

        Raises:
            DeviceLost: this process can't compute any more.
        """
        flight = self._landings.take()
        now = time.monotonic()
        self._count(now)
        self._flights.remove(flight)
        if self._flights:
            self._timer.start(self._flights[0].began)
        else:
            self._capacity = 0
            self._timer.stop()
        if flight.error:
            raise flight.error
        self.last_s = now - flight.began
        device_s = self._shared - flight.shared_began
        return Landed(flight.jobs, flight.spec, flight.outcomes, flight.gone, flight.began, self.last_s, device_s)

    def forget(self, owner: Hashable) -> None:
        """Notes that nobody waits for the owner's jobs any more."""
        for flight in self._flights:
            flight.gone.add(owner)

    def _count(self, now: float) -> None:
        if self._flights:
            self._shared += (now - self._counted) / len(self._flights)
        self._counted = now


class _Landings(Generic[P]):
    """Flights that have landed, as threads hand them to the one that finishes them."""

    def __init__(self) -> None:
        self._flights: deque[_Flight[P]] = deque()
        self._wakeup = Wakeup()
        """Has a byte for each of them."""

    def __len__(self) -> int:
        return len(self._flights)

    def add(self, flight: _Flight[P]) -> None:
        self._flights.append(flight)
        self._wakeup.put()

    def take(self) -> _Flight[P]:
        """Waits for one."""
        self._wakeup.take()
        return self._flights.popleft()

    @property
    def fd(self) -> int:
        """Readable while there is one."""
        return self._wakeup.fd


class _Crew(Generic[P]):
    """Threads that compute: as many as flights were in the air at a time. They hold up no process that ends.

    Not an executor: Python waits for the threads of those when it ends, and in Python 3.12 they become more and more.
    """

    def __init__(self, landings: _Landings[P]) -> None:
        self._landings = landings
        self._begun: SimpleQueue[_Flight[P] | None] = SimpleQueue()
        self._threads = 0
        weakref.finalize(self, self._begun.put, None).atexit = False

    def take(self, flight: _Flight[P], threads: int) -> None:
        """Has a flight computed, one of as many as `threads`."""
        if self._threads < threads:
            try:
                threading.Thread(
                    target=_compute, args=(self._begun, self._landings), name=f"lane-{self._threads}", daemon=True
                ).start()
                self._threads += 1
            except RuntimeError:  # none can be started: those that there are will do, or else this one
                log.warning("a thread to compute in can't be started: there are %d", self._threads)
        if self._threads:
            self._begun.put(flight)
        else:
            flight.run()
            self._landings.add(flight)


def _compute(begun: SimpleQueue[_Flight[P] | None], landings: _Landings[P]) -> None:
    """What a thread of a crew does until the crew is gone."""
    while flight := begun.get():
        flight.run()
        landings.add(flight)
        del flight  # not kept until the next comes: a worker's arena is mapped as long as anything refers to it
    begun.put(None)  # for the next thread
