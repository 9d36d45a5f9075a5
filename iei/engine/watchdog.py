"""A model whose forwards may not hang: one that takes too long ends the process, and the supervisor starts another."""

from __future__ import annotations

import faulthandler
import math
import time
from collections.abc import Collection, Sequence

from iei.models.spec import Modality
from iei.runtimes.api import Input, Model, Outputs

LATE_S = 1.0
"""How much later than due a process may end. Setting faulthandler's timer takes a tenth of a millisecond, as it starts
a thread each time: forwards of a small model share one that was set at most this long before."""


class Timer:
    """Ends the process when it runs out, or up to `LATE_S` later.

    It is faulthandler's, which is written in C: it needs neither this thread nor the GIL to print the traceback and to
    end a process that hangs in a driver. A process has only one.

    Args:
        timeout_s: None: it never runs out.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._set_at = -math.inf
        """When faulthandler's was set; it is not set if that is minus infinity."""
        self._is_running = False

    def start(self, since: float | None = None) -> None:
        """Starts it, from the beginning if it runs already.

        Args:
            since: `time.monotonic()` of the beginning, if that was earlier. None: now.
        """
        if self._timeout_s is None:
            return
        self._is_running = True
        now = time.monotonic()
        began = now if since is None else since
        if began - self._set_at > LATE_S:
            faulthandler.dump_traceback_later(max(LATE_S, self._timeout_s + LATE_S - (now - began)), exit=True)
            self._set_at = began

    def stop(self) -> None:
        """Stops it. Faulthandler's may be left as it is, for the next start: call `rest` within `rest_s`."""
        self._is_running = False
        self.rest()

    @property
    def rest_s(self) -> float | None:
        """How long the process may wait before it calls `rest`. None: for ever."""
        if self._is_running or math.isinf(self._set_at):
            return None
        return max(0.0, self._set_at + LATE_S - time.monotonic())

    def rest(self) -> None:
        """Takes faulthandler's timer off, if nothing has started it again in time."""
        if self.rest_s == 0.0:
            faulthandler.cancel_dump_traceback_later()
            self._set_at = -math.inf


class Watchdog:
    """Implements `Model` with another one, and limits the duration of each forward; `Lanes` does it on lanes."""

    def __init__(self, model: Model, timer: Timer) -> None:
        self.spec = model.spec
        self._model = model
        self._timer = timer

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """As `Model.run`; ends the process when the timer runs out."""
        self._timer.start()
        try:
            return self._model.run(modality, batch, outputs)
        finally:
            self._timer.stop()
