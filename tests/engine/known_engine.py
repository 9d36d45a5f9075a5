"""An engine process whose model is `KnownRuntime`: `python -m tests.engine.known_engine LISTEN_FD DEATHS_FD`.

Everything about it is the real thing but the model, which some pictures make misbehave, and where it comes from.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from iei.engine.config import EngineConfig
from iei.engine.loaded_models import LoadedModels
from iei.engine.process import EngineProcess
from iei.errors import StartupError
from iei.models.spec import LoadRequest
from iei.runtimes.api import Input
from iei.telemetry import logs
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime

DEADLY, FAILING, SLOW = 66, 67, 68
SLOW_S = 0.4
MODELS = ("known", "second", "third", "broken", "deadly", "stuck")
"""`broken` can't be loaded, loading `deadly` ends the engine, and the download of `stuck` never does."""


def misbehave(batch: Sequence[Input]) -> None:
    values = {int(each[0, 0, 0]) for each in batch}
    if DEADLY in values:
        os._exit(1)
    if FAILING in values:
        raise RuntimeError("→" * 200)  # three bytes each: cut to its slot in the middle of one
    if SLOW in values:
        time.sleep(SLOW_S)


class KnownLoader:
    def fetch(self, request: LoadRequest) -> None:
        if request.name == "stuck":
            threading.Event().wait()

    def load(self, request: LoadRequest) -> KnownRuntime:
        if request.name == "broken":
            raise StartupError("/srv/secret has no config.json: set IEI_SECRET.")
        if request.name == "deadly":
            os._exit(1)
        if request.name != "known":
            time.sleep(SLOW_S)
        runtime = KnownRuntime(misbehave)
        runtime.spec = replace(SPEC, name=request.name, id=request.id)
        return runtime


def main() -> None:
    logs.configure("info")
    listen, deaths = map(int, sys.argv[1:])
    config = EngineConfig(tuple(LoadRequest(name, name) for name in MODELS), max_loaded=2)
    models = LoadedModels(config.models, config.max_loaded, KnownLoader(), mmap.mmap(deaths, len(MODELS)))
    spec = models.load_first(1)
    EngineProcess(config, socket.socket(fileno=listen), models, spec.max_batch).serve_forever()


if __name__ == "__main__":
    main()
