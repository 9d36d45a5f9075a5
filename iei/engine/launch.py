"""Starts engines, from the process that the workers will be forked from, and waits for their models."""

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
from functools import cached_property
from pathlib import Path

from iei.engine.address import EngineAddress
from iei.engine.config import EngineConfig
from iei.errors import StartupError
from iei.models.catalog import Catalog
from iei.models.spec import ModelSpec
from iei.settings import Settings
from iei.telemetry.counters import Counters
from iei.telemetry.logs import Form

log = logging.getLogger(__name__)

BACKLOG = 1024


class LaunchedEngine:
    """A supervised engine. It ends once this object is closed and every process forked from this one has ended.

    The engine runs as long as somebody has the writing end of a pipe open: this process and, after a fork, every
    worker. So no signal has to be sent and none can be missed, and workers that still finish accepted requests still
    have their engine.
    """

    def __init__(self, path: Path, supervisor: subprocess.Popen[bytes], life_fd: int, status_fd: int) -> None:
        """Takes over the descriptors: the writing end of that pipe, and the reading end of the engine's report."""
        self.supervisor = supervisor
        self._path = path
        self._status = os.fdopen(status_fd)
        self._release = weakref.finalize(self, os.close, life_fd)

    @cached_property
    def address(self) -> EngineAddress:
        """Where it is found. Blocks until it has its models, which takes minutes if they have to be downloaded.

        Raises:
            StartupError: it can't load them, and has ended; the message says why.
        """
        try:
            return EngineAddress(self._path, self._default())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the pipe here. The engine ends at once if no other process has it open."""
        self._status.close()
        self._release()

    def _default(self) -> ModelSpec:
        with self._status as status:
            text = status.read()
        if not text:
            raise StartupError("The engine process died while it loaded the model; the lines above may say why.")
        report = json.loads(text)
        if "failed" in report:
            raise StartupError(report["failed"])
        return ModelSpec.from_json(json.dumps(report["ready"]))


def launch(config: EngineConfig, counters: Counters) -> LaunchedEngine:
    """Starts an engine, which then loads its models while the caller does something else.

    Args:
        config: of the engine.
        counters: where it and its supervisor count.

    Raises:
        StartupError: it can't be started; the message says why.
    """
    life_reader, life_writer = os.pipe()
    status_reader, status_writer = os.pipe()
    try:
        path, supervisor = _start_supervisor(config, counters, life_reader, status_writer)
    except OSError as error:
        os.close(life_writer)
        os.close(status_reader)
        raise StartupError(
            f"The engine can't be started ({error}): see that TMPDIR can be written and has a short path, and that "
            "the limits on memory and processes leave room."
        ) from error
    finally:
        os.close(life_reader)
        os.close(status_writer)
    return LaunchedEngine(path, supervisor, life_writer, status_reader)


def _start_supervisor(
    config: EngineConfig, counters: Counters, life_fd: int, status_fd: int
) -> tuple[Path, subprocess.Popen[bytes]]:
    """Returns the path of the socket, and the supervisor's process."""
    folder = Path(tempfile.mkdtemp(prefix="iei-"))  # mode 0700: nobody else can connect
    path = folder / "engine.sock"
    try:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
            tempfile.TemporaryFile() as config_file,
            tempfile.TemporaryFile() as deaths,
        ):
            listener.bind(str(path))
            listener.listen(BACKLOG)
            config_file.write(config.to_json())
            config_file.seek(0)
            deaths.truncate(len(config.models))
            fds = {
                "--listen": listener.fileno(),
                "--life": life_fd,
                "--deaths": deaths.fileno(),
                "--counters": counters.fd,
                "--status": status_fd,
            }
            options = {
                **fds,
                "--folder": folder,
                "--device": config.models[0].device,
                "--log-level": config.logs.log_level,
                "--log-format": config.logs.log_format,
            }
            arguments = [str(word) for option in options.items() for word in option]
            return path, subprocess.Popen(
                [sys.executable, "-m", "iei.engine.supervisor", *arguments],
                pass_fds=[*fds.values()],
                stdin=config_file,
                start_new_session=True,  # Ctrl-C in a terminal goes to the whole group: the engine is not in it
            )
    except BaseException:
        shutil.rmtree(folder)
        raise


def launch_engines(settings: Settings, catalog: Catalog, counters: Counters) -> list[LaunchedEngine]:
    """Starts one engine per device; all load their models at the same time, while the caller does something else.

    Raises:
        StartupError: one of them can't be started; the others end.
    """
    return [launch(engine_config(settings, catalog, device), counters) for device in settings.engine.devices]


def engine_config(settings: Settings, catalog: Catalog, device: str) -> EngineConfig:
    """The configuration of the engine on `device`."""
    return EngineConfig(
        models=catalog.load_requests(device, settings.load),
        max_loaded=settings.engine.max_loaded_models,
        at_start=settings.engine.at_start,
        timeout_s=settings.engine.engine_timeout_s,
        logs=Form(settings.logs.log_level, settings.logs.log_format),
    )
