"""A runtime that no forward may keep: one that hangs ends the process, and a new one takes over."""

from __future__ import annotations

import faulthandler
from collections.abc import Collection, Sequence

from iei.models.spec import Modality
from iei.runtimes.api import Input, Outputs, Runtime


class Watchdog:
    """Implements `Runtime` with another one, for each of whose forwards a watchdog in C counts the seconds: it needs
    neither this thread nor the GIL to print the traceback and to end a process that hangs in a driver."""

    def __init__(self, runtime: Runtime, timeout_s: float) -> None:
        self.spec = runtime.spec
        self.max_batch = runtime.max_batch
        self._runtime = runtime
        self._timeout_s = timeout_s

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        faulthandler.dump_traceback_later(self._timeout_s, exit=True)
        try:
            return self._runtime.run(modality, batch, outputs)
        finally:
            faulthandler.cancel_dump_traceback_later()
