"""Servers as real processes: started on a free port, watched until they are ready, stopped with all their children."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
START_S = 180.0
STOP_S = 20.0
LOG_LINES = 30


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def family(self) -> list[psutil.Process]:
        """The master and all that descend from it."""
        master = psutil.Process(self.process.pid)
        return [master, *master.children(recursive=True)]


@contextlib.contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Server]:
    """A running server that has answered `/health` with 200. `{port}` in `command` becomes its port.

    Raises RuntimeError, with the end of its log, when it isn't ready in time or ends before.
    """
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *(part.format(port=port) for part in command)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        server = Server(process, port)
        try:
            if not ready(server):
                log.seek(0)
                tail = b"\n".join(log.read().splitlines()[-LOG_LINES:]).decode(errors="replace")
                raise RuntimeError(f"{' '.join(command)} is not ready:\n{tail}")
            yield server
        finally:
            stop(server)


def ready(server: Server) -> bool:
    deadline = time.monotonic() + START_S
    while server.process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return True
        time.sleep(0.2)
    return False


def stop(server: Server) -> None:
    """SIGTERM to the master, as in production; whatever of its family is left after a while is killed."""
    family = server.family() if server.process.poll() is None else []
    server.process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=STOP_S)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
