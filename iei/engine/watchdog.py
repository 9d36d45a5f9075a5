"""A model whose forwards may not hang: one that takes too long ends the process, and the supervisor starts another."""

from __future__ import annotations

import faulthandler
from collections.abc import Collection, Sequence

from iei.models.spec import Modality
from iei.runtimes.api import Input, Model, Outputs


class Timer:
    """Ends the process when it runs out.

    It is faulthandler's, which is written in C: it needs neither this thread nor the GIL to print the traceback and to
    end a process that hangs in a driver. A process has only one.

    Args:
        timeout_s: None: it never runs out.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s

    def start(self) -> None:
        """Starts it, from the beginning if it runs already."""
        if self._timeout_s is not None:
            faulthandler.dump_traceback_later(self._timeout_s, exit=True)

    def stop(self) -> None:
        """Stops it."""
        if self._timeout_s is not None:
            faulthandler.cancel_dump_traceback_later()


class Watchdog:
    """Implements `Model` with another one, and limits the duration of each forward."""

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
