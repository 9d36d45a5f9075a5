"""Real servers for tests: gunicorn, its workers and the engine, started on a free port and stopped without a trace."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

ROOT = Path(__file__).parents[1]
START_S = 120.0
STOP_S = 45.0
PATIENCE_S = 60.0
_MARK = "TESTED_SERVER"
"""Environment variable that tells a server's processes, however they were started, from all others."""
_SETTINGS = (
    "IEI_",
    "IMAGE_EMBEDDING_MODEL",
    "MODEL_",
    "POOLING_STRATEGY",
    "NORMALIZE_EMBEDDINGS",
    "GUNICORN_",
    "AIP_",
    "OTEL_",
    "PORT",
)
"""Beginnings of variables that would change a tested server, were they set outside."""
_DEFAULTS = {"IEI_BIND": "127.0.0.1:0", "IEI_DRAIN_S": "0"}
_ADDRESS = re.compile(r"(?:Listening at:|address|Uvicorn running on) +(https?://127\.0\.0\.1:\d+)")

T = TypeVar("T")


class ServerDied(AssertionError):
    """It ended, or was not ready in time. The message has its log."""


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    """gunicorn's master (or `iei serve`)."""
    mark: str
    log_file: Path
    url: str = ""
    """http://127.0.0.1:PORT (https where it has a certificate), without a slash at its end."""

    @property
    def grpc(self) -> str:
        """127.0.0.1:PORT of its gRPC port, if it was started with `IEI_GRPC_BIND`."""
        found = re.search(r"gRPC is served on (\S+)", self.log)
        assert found, self.log
        return found[1]

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """All of this server that are alive: master, workers, supervisor, engine."""
        return [process for process in psutil.process_iter() if _is_marked(process, self.mark)]

    def workers(self) -> list[psutil.Process]:
        """Its workers that are alive: forks of the master, with its command line."""
        workers = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                parent = process.parent()
                if parent and _is_marked(parent, self.mark) and parent.cmdline() == process.cmdline():
                    workers.append(process)
        return workers

    def all_workers(self, count: int) -> list[psutil.Process]:
        """Its workers, once there are so many: one that has ended is replaced a moment later."""
        return until(lambda: found if len(found := self.workers()) == count else None)

    def running(self, module: str) -> list[psutil.Process]:
        """Its processes that run this module, as with `python -m`."""
        return [process for process in self.processes() if runs(process, module)]

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Ends it as an operator would. Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        return self.process.wait(STOP_S)


def runs(process: psutil.Process, module: str) -> bool:
    """Whether a process, which may have ended meanwhile, runs this module, as with `python -m`."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return module in process.cmdline()
    return False


def until(condition: Callable[[], T | None]) -> T:
    """What it returns, once that is true."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < give_up_at, condition
        time.sleep(0.05)
    return result


@contextlib.contextmanager
def serve(
    env: Mapping[str, str],
    workers: int = 2,
    command: Sequence[str] | None = None,
    *,
    worker_class: str = "uvicorn.workers.UvicornWorker",
    start_s: float = START_S,
    meanwhile: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
) -> Iterator[Server]:
    """A server that has answered `/health` with 200, and has all workers that its command names.

    Args:
        env: settings, added to an environment without any. Without a folder for converted models, or a runtime, torch
            computes: converting a model takes longer than torch does to start.
        command: instead of `gunicorn server:app …`; it has to listen on a free port of 127.0.0.1 and to log gunicorn's
            "Listening at". `python` as its first word is the tests' own.
        worker_class: of gunicorn, where `command` is not given.
        start_s: how long it may take to be ready.
        meanwhile: called with the process as soon as it runs, before it is waited for.

    Raises:
        ServerDied: it did not become ready.
        AssertionError: at the end of the block, when a process of its is left after SIGTERM.
    """
    mark = uuid.uuid4().hex
    runtime = {} if "IEI_CACHE_DIR" in env else {"IEI_RUNTIME": "torch"}
    with tempfile.TemporaryDirectory(prefix="iei-tested-") as folder:
        log_file = Path(folder, "log")
        command = _python(command or gunicorn_command(workers, worker_class))
        with log_file.open("wb") as log:
            master = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**_clean_environment(), **_DEFAULTS, **runtime, **env, _MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(master, mark, log_file)
        try:
            meanwhile(master)
            _wait_until_ready(server, start_s)
            if "--workers" in command:  # the first may answer before the last is forked
                server.all_workers(int(command[command.index("--workers") + 1]))
            yield server
            server.stop()
            psutil.wait_procs(server.processes(), timeout=STOP_S)
            left = [process.as_dict(["pid", "cmdline"]) for process in server.processes()]
            assert not left, f"left running after SIGTERM: {left}\n{server.log}"
        finally:
            for process in server.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            server.process.wait()


def gunicorn_command(workers: int, worker_class: str) -> list[str]:
    """The README's line, on a free port."""
    return (
        f"python -m gunicorn server:app --preload --workers {workers} --worker-class {worker_class} --bind 127.0.0.1:0"
    ).split()


def _python(command: Sequence[str]) -> list[str]:
    return [sys.executable, *command[1:]] if command[0] == "python" else list(command)


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}


def _wait_until_ready(server: Server, start_s: float) -> None:
    deadline = time.monotonic() + start_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise ServerDied(f"exit status {server.process.returncode}:\n{server.log}")
        if address := _ADDRESS.search(server.log):
            server.url = address[1]
            with contextlib.suppress(httpx.TransportError):
                # Certificates of tests are checked by the tests themselves.
                if httpx.get(f"{server.url}/health", timeout=10, verify=False).status_code == 200:
                    return
        time.sleep(0.1)
    raise ServerDied(f"not ready within {start_s:g} s:\n{server.log}")


def _is_marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:  # it has just ended, or is somebody else's
        return False
