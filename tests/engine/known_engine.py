"""An engine process whose model is `KnownRuntime`: `python -m tests.engine.known_engine LISTEN_FD DEATHS_FD`.

Only the model, which some pictures make misbehave, and the loader are not the real ones. Before each forward, a line on
stderr says which pictures are in it (`FORWARD`), so that a test knows when the engine is busy.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from iei.engine.frames import Welcome
from iei.engine.loaded_models import LoadedModels
from iei.engine.process import EngineProcess
from iei.engine.scheduler import Scheduler
from iei.errors import StartupError
from iei.models.catalog import LoadRequest
from iei.runtimes.api import Input
from iei.settings import LogSettings
from iei.telemetry import logs
from tests.engine.runtimes_for_tests import DECODING_SPEC, SPEC, KnownRuntime, OverlappingRuntime
from tests.load_requests import load_request

DEADLY, FAILING, SLOW = 66, 67, 68
SLOW_S = 0.4
MODELS = ("known", "second", "third", "broken", "deadly", "stuck", "decoding", "awaited")
"""`third` is brought a batch while it computes another. `broken` can't be loaded, loading `deadly` ends the engine, and
the download of `stuck` never does. `decoding` takes JPEGs, too. `awaited` is loaded once the engine has got SIGUSR1."""


FORWARD = "forward of {}"


def misbehave(batch: Sequence[Input]) -> None:
    """Dies, fails or takes its time, if a picture of the batch asks for that."""
    values = {int(each[0, 0, 0]) for each in batch if each.ndim == 3}
    for value in values:
        print(FORWARD.format(value), file=sys.stderr, flush=True)
    if DEADLY in values:
        os._exit(1)
    if FAILING in values:
        raise RuntimeError("→" * 200)  # three bytes each: cut to its slot in the middle of one
    if SLOW in values:
        time.sleep(SLOW_S)


class KnownLoader:
    """A loader for `MODELS`."""

    def __init__(self) -> None:
        self._go = threading.Event()
        signal.signal(signal.SIGUSR1, lambda *_: self._go.set())

    def fetch(self, request: LoadRequest) -> None:
        """Returns at once, but for `stuck` never."""
        if request.entry.name == "stuck":
            threading.Event().wait()

    def load(self, request: LoadRequest) -> KnownRuntime:
        """A `KnownRuntime` under the name that is asked for."""
        if request.entry.name == "broken":
            raise StartupError("/srv/secret has no config.json: set IEI_SECRET.")
        if request.entry.name == "deadly":
            os._exit(1)
        if request.entry.name == "awaited":
            self._go.wait()
        elif request.entry.name != "known":
            time.sleep(SLOW_S)
        model = (OverlappingRuntime if request.entry.name == "third" else KnownRuntime)(misbehave)
        model.spec = replace(SPEC, name=request.entry.name, id=request.entry.id)
        if request.entry.name == "decoding":
            model.spec = replace(DECODING_SPEC, name="decoding", id="decoding")
        return model


def main() -> None:
    """The program."""
    logs.configure(LogSettings())
    listen, deaths, after_kill = map(int, sys.argv[1:])
    requests = [load_request(name, name) for name in MODELS]
    models = LoadedModels(requests, 2, KnownLoader(), mmap.mmap(deaths, len(MODELS)))
    models.load_first(1)
    welcome = Welcome(after_kill=bool(after_kill))
    EngineProcess(socket.socket(fileno=listen), Scheduler(models), welcome).serve_forever()


if __name__ == "__main__":
    main()
