"""Starting an engine, from the process that the workers will be forked from."""

from __future__ import annotations

import json
import logging
import os
import shutil
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

    def __init__(self, address: EngineAddress, supervisor: subprocess.Popen[bytes], life_fd: int) -> None:
        self.address = address
        self.supervisor = supervisor
        self._let_go = weakref.finalize(self, os.close, life_fd)

    def close(self) -> None:
        """Lets go of the engine. It ends at once if nobody else holds on to it."""
        self._let_go()


def launch(config: EngineConfig) -> LaunchedEngine:
    """Starts an engine and blocks until it has its models, which takes minutes where they have to be downloaded.

    Raises:
        StartupError: it can't have them, or can't be started, and why.
    """
    life_reader, life_writer = os.pipe()
    status_reader, status_writer = os.pipe()
    try:
        path, supervisor = _start_supervisor(config, life_reader, status_writer)
    except OSError as error:
        raise StartupError(
            f"The engine can't be started ({error}): see that TMPDIR can be written and has a short path, and that "
            "the limits on memory and processes leave room."
        ) from error
    finally:
        os.close(life_reader)
        os.close(status_writer)
    try:
        return LaunchedEngine(EngineAddress(path, _wait_until_ready(status_reader)), supervisor, life_writer)
    except BaseException:
        os.close(life_writer)
        raise


def _start_supervisor(config: EngineConfig, life_fd: int, status_fd: int) -> tuple[Path, subprocess.Popen[bytes]]:
    """The path of its socket, and the process."""
    folder = Path(tempfile.mkdtemp(prefix="iei-"))  # mode 0700: nobody else can connect
    path = folder / "engine.sock"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, tempfile.TemporaryFile() as config_file:
            listener.bind(str(path))
            listener.listen(BACKLOG)
            config_file.write(config.to_json())
            config_file.seek(0)
            fds = {"--listen": listener.fileno(), "--life": life_fd, "--status": status_fd}
            arguments = [str(word) for option in fds.items() for word in option]
            return path, subprocess.Popen(
                [sys.executable, "-m", "iei.engine.supervisor", *arguments, "--folder", str(folder)],
                pass_fds=[*fds.values()],
                stdin=config_file,
                start_new_session=True,  # Ctrl-C in a terminal goes to the whole group: the engine is not in it
            )
    except BaseException:
        shutil.rmtree(folder)
        raise


def _wait_until_ready(status_fd: int) -> ModelSpec:
    """Blocks until the engine has its models; describes the default one.

    Raises:
        StartupError: it has them not, and why.
    """
    with os.fdopen(status_fd) as status:
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
        started = [threads.submit(launch, engine_config(settings, device)) for device in settings.devices]
    return [engine.result() for engine in started]


def engine_config(settings: Settings, device: str) -> EngineConfig:
    return EngineConfig(
        models=load_requests(settings, device),
        max_loaded=settings.max_loaded_models,
        at_start=settings.max_loaded_models if settings.load_at_start == "all" else 1,
        timeout_s=settings.engine_timeout_s,
        log_level=settings.log_level,
    )
