"""How many connections each worker has, so that a new one goes to a worker with few of them.

Left to themselves, workers that wait at one listening socket share connections unevenly: whoever wakes first takes
them. Clients keep their connections, so the requests of some would wait longer than those of others for hours.
"""

from __future__ import annotations

from time import monotonic

from iei.telemetry.counters import Counters
from iei.telemetry.metrics import ACCEPTING_AT, CONNECTIONS

STEP_S = 0.001
"""What a worker leaves to the others before it accepts, for each connection that it has more than one of them."""
MOST_STEPS = 10
"""A worker with fewer that has not come by then is busy."""
SLACK = 8
"""Of so many connections, one more or less makes no difference."""
SILENT_S = 3.0
"""A worker that has said nothing for so long hangs, or is gone. All speak once a second."""


class Spread:
    """What the workers of a server tell each other, in memory that they share.

    Args:
        counters: which this process has joined.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._own = 0
        self._is_accepting = False

    def tell(self, connections: int) -> None:
        """This worker has so many connections now."""
        self._own = connections
        self._counters.set(CONNECTIONS, (), connections)

    def enter(self) -> None:
        """From now on, this worker accepts connections."""
        self._is_accepting = True
        self.beat()

    def beat(self) -> None:
        """This worker lives. If it accepts connections, it still will in a second."""
        if self._is_accepting:
            self._counters.set(ACCEPTING_AT, (), monotonic())

    def leave(self) -> None:
        """From now on, connections are rather for the others."""
        self._is_accepting = False
        self._counters.set(ACCEPTING_AT, (), 0)

    def wait_s(self) -> float:
        """Seconds for which a connection that waits is left to the other workers."""
        accepting_at, connections = (self._counters.by_process(each) for each in (ACCEPTING_AT, CONNECTIONS))
        of_others = connections[accepting_at > monotonic() - SILENT_S]
        if not of_others.size:
            return 0
        if not self._is_accepting:
            return MOST_STEPS * STEP_S
        fewest = int(of_others.min())
        return STEP_S * min(MOST_STEPS, max(0, self._own - fewest - fewest // SLACK))
