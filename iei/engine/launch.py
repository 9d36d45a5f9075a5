"""Starting an engine, from the process that the workers will be forked from."""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import sys
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from iei.engine.config import EngineConfig
from iei.errors import StartupError
from iei.models.catalog import load_requests
from iei.models.spec import ModelSpec
from iei.settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 1024


@dataclass(frozen=True)
class EngineAddress:
    """Where workers find a running engine."""

    path: Path
    """Of its Unix socket."""
    default: ModelSpec
    """The model that it has loaded."""


class LaunchedEngine:
    """A supervised engine. It ends when this object is closed, and so does every process forked from this one.

    The engine's life hangs on a pipe: the writing end is here and, after a fork, in every worker. No signal has to be
    sent and none can be missed; workers that still finish accepted requests still have their engine.
    """

    def __init__(self, config: EngineConfig) -> None:
        folder = Path(tempfile.mkdtemp(prefix="iei-"))  # mode 0700: nobody else can connect
        path = folder / "engine.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        life_reader, life_writer = os.pipe()
        status_reader, status_writer = os.pipe()
        arguments = [
            "--listen",
            listener.fileno(),
            "--life",
            life_reader,
            "--status",
            status_writer,
            "--folder",
            folder,
        ]
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "iei.engine.supervisor", config.to_json(), *map(str, arguments)],
            pass_fds=(listener.fileno(), life_reader, status_writer),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal goes to the whole group: the engine is not in it
        )
        listener.close()
        os.close(life_reader)
        os.close(status_writer)
        self._let_go = weakref.finalize(self, os.close, life_writer)
        try:
            self.address = EngineAddress(path, _wait_until_ready(status_reader))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the engine. It ends at once if nobody else holds on to it."""
        self._let_go()


def _wait_until_ready(status_fd: int) -> ModelSpec:
    """Blocks until the engine has its model.

    Raises:
        StartupError: it has not, and why.
    """
    with os.fdopen(status_fd) as status:
        select.select([status], [], [])
        text = status.read()
    if not text:
        raise StartupError("The engine process died while it loaded the model; the lines above may say why.")
    report = json.loads(text)
    if "failed" in report:
        raise StartupError(report["failed"])
    return ModelSpec.from_json(json.dumps(report["ready"]))


def launch_engines(settings: Settings) -> list[LaunchedEngine]:
    """One engine per device, started side by side, each with its default model loaded.

    Raises:
        StartupError: one of them can't be; the others are let go.
    """
    with ThreadPoolExecutor(len(settings.devices)) as threads:
        started = [threads.submit(LaunchedEngine, engine_config(settings, device)) for device in settings.devices]
    return [engine.result() for engine in started]


def engine_config(settings: Settings, device: str) -> EngineConfig:
    return EngineConfig(
        models=load_requests(settings, device),
        max_loaded=settings.max_loaded_models,
        at_start=settings.max_loaded_models if settings.load_at_start == "all" else 1,
        timeout_s=settings.engine_timeout_s,
        log_level=settings.log_level,
    )
