"""Batches that a model has begun and that are not finished: the device computes one while it is brought the next.

When to begin the second one: as late as the device is not kept waiting. A batch that has been begun can't grow, and
nothing that arrives afterwards goes before it, however urgent it is. So it is begun when the first is about to be done,
by what batches like it took before. A batch that can't grow, and that nothing may overtake, need not wait for that: one
that is full of interactive jobs. More than two would only be batches that wait where nobody can overtake them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from iei.engine.batcher import Job
from iei.engine.execute import Outcome, Pending
from iei.engine.watchdog import Timer
from iei.models.spec import ModelSpec

P = TypeVar("P")

DEPTH = 2
MARGIN_S = 0.001
"""For waking up, and for the copy to the device."""
SLOWER = 1.05
"""How much an expected duration grows with each batch that took longer. It falls at once: beginning too early costs
less than a device that waits."""
LOOK_S = 0.002
"""How often to look whether a batch is done that is not expected to be: an answer is late by no more than this."""
MOST_KINDS = 512
"""Kinds of batches whose durations are kept: clients choose the sizes of pictures."""


class Landed(NamedTuple, Generic[P]):
    """A batch that is finished."""

    jobs: list[Job[P]]
    spec: ModelSpec
    """Of the model that computed it."""
    outcomes: list[Outcome]
    """One for each job."""
    gone: set[Hashable]
    """Owners of jobs that nobody waits for any more."""
    started: float
    """When the device could begin to compute it, `time.monotonic()`: the batches before it were done."""
    seconds: float
    """From then until it was done, or seen to be."""
    device_s: float
    """Of these, its share: others may have been computed at the same time."""


@dataclass(slots=True, eq=False)
class _Flight(Generic[P]):
    jobs: list[Job[P]]
    spec: ModelSpec
    pending: Pending
    began: float
    done_at: float | None = None
    """When it was first seen to be done."""
    gone: set[Hashable] = field(default_factory=set)

    @property
    def kind(self) -> tuple[Hashable, int]:
        """Equal for batches that take about as long."""
        return self.jobs[0].key, len(self.jobs)


class InFlight(Generic[P]):
    """The batches that have been begun, in their order. For one thread."""

    def __init__(self, timer: Timer) -> None:
        """None are in flight. `timer` limits how long the device may take for each."""
        self._timer = timer
        self._flights: deque[_Flight[P]] = deque()
        self._landed_at = 0.0
        self._begin_s = 0.0
        """What the last batch took to begin that was begun while nothing was in flight, or one that took less since.
        Others may have waited for the device: transformers looks at the values of a text's mask."""
        self._expected: dict[tuple[Hashable, int], float] = {}
        """Kind of a batch → the seconds that it takes at least."""

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def is_full(self) -> bool:
        """Whether no other batch may be begun."""
        return len(self._flights) >= DEPTH

    @property
    def is_done(self) -> bool:
        """Whether the oldest batch can be finished without waiting for it. To be asked often: it notes since when."""
        if not self._flights:
            return False
        first = self._flights[0]
        if first.done_at is None and first.pending.done():
            first.done_at = time.monotonic()
        return first.done_at is not None

    @property
    def wait_s(self) -> float:
        """How long to wait before looking again whether to begin another batch, or to finish the oldest.

        There must be one. In whole milliseconds, rounded down: epoll rounds up.
        """
        if self.is_done:
            return 0.0
        first = self._flights[0]
        expected = self._expected.get(first.kind, 0.0)
        due = self._started(first) + expected - self._begin_s - MARGIN_S
        return min(LOOK_S, max(0.0, math.floor((due - time.monotonic()) * 1e3) / 1e3))

    def begin(self, jobs: list[Job[P]], begin: Callable[[], Pending], spec: ModelSpec) -> None:
        """Takes a batch on, which `begin` begins.

        Raises:
            DeviceLost: as `begin` does.
        """
        now = time.monotonic()
        is_first = not self._flights
        if is_first:
            self._timer.start()
        try:
            self._flights.append(_Flight(jobs, spec, begin(), now))
        finally:
            if not self._flights:
                self._timer.stop()
        begin_s = time.monotonic() - now
        self._begin_s = begin_s if is_first else min(begin_s, self._begin_s)

    def finish(self) -> Landed[P]:
        """Waits for the oldest batch; there must be one.

        Raises:
            DeviceLost: this process can't compute any more. The batch is not in flight any more.
        """
        flight = self._flights.popleft()
        started = self._started(flight)
        try:
            outcomes = flight.pending.finish()
        finally:
            self._timer.stop()
        if self._flights:
            self._timer.start()  # of the next one, which the device computes from now on
        self._landed_at = time.monotonic() if flight.done_at is None else flight.done_at
        seconds = self._landed_at - started
        self._learn(flight.kind, seconds)
        return Landed(flight.jobs, flight.spec, outcomes, flight.gone, started, seconds, seconds)

    def forget(self, owner: Hashable) -> None:
        """Notes that nobody waits for the owner's jobs any more."""
        for flight in self._flights:
            flight.gone.add(owner)

    def _started(self, flight: _Flight[P]) -> float:
        return max(flight.began, self._landed_at)

    def _learn(self, kind: tuple[Hashable, int], seconds: float) -> None:
        if len(self._expected) >= MOST_KINDS:
            self._expected.clear()
        self._expected[kind] = min(seconds, self._expected.get(kind, seconds) * SLOWER)
