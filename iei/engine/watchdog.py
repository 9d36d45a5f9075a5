"""A model whose forwards may not hang: one that takes too long ends the process, and the supervisor starts another."""

from __future__ import annotations

import faulthandler
from collections.abc import Collection, Sequence

from iei.models.spec import Modality
from iei.runtimes.api import Input, Model, Outputs


class Watchdog:
    """Implements `Model` with another one, and limits the duration of each forward.

    The timer is faulthandler's, which is written in C: it needs neither this thread nor the GIL to print the traceback
    and to end a process that hangs in a driver.
    """

    def __init__(self, model: Model, timeout_s: float) -> None:
        self.spec = model.spec
        self._model = model
        self._timeout_s = timeout_s

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """As `Model.run`; ends the process after `timeout_s`."""
        faulthandler.dump_traceback_later(self._timeout_s, exit=True)
        try:
            return self._model.run(modality, batch, outputs)
        finally:
            faulthandler.cancel_dump_traceback_later()
