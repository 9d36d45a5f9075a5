"""Engine processes with a known model, a client of them, and what tests ask of both."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iei.engine.address import EngineAddress
from iei.engine.api import Result
from iei.engine.client import EngineClient
from iei.engine.frames import DTYPES, Slot, Submit
from tests.engine.known_engine import FORWARD, MODELS
from tests.engine.runtimes_for_tests import SPEC, picture, shapes
from tests.engine.waiting import until


class KnownEngines:
    """Starts a new engine whenever one ends, as the supervisor does."""

    def __init__(self, path: Path, *, after_kill: bool = False) -> None:
        """Engines that listen at the Unix socket `path`, and say of the one before whether it was killed."""
        self._after_kill = after_kill
        self.address = EngineAddress(path, SPEC)
        self.started = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._log = path.with_name("log").open("w+")
        self._deaths = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self._deaths.truncate(len(MODELS))
        self._stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_running)
        self._thread.start()

    def _keep_running(self) -> None:
        fds = [self._listener.fileno(), self._deaths.fileno()]
        command = [sys.executable, "-m", "tests.engine.known_engine", *map(str, fds), str(int(self._after_kill))]
        while not self._stopping:
            self._process = subprocess.Popen(command, pass_fds=fds, stderr=self._log)
            self.started += 1
            self._process.wait()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The engine that was started last."""
        assert self._process
        return self._process

    def runs(self, value: int) -> bool:
        """Whether a forward with the picture of this value has begun."""
        return FORWARD.format(value) in self.log

    @property
    def forwards(self) -> list[int]:
        """The pictures of all forwards so far, by their values; those of one batch in any order."""
        return [int(value) for value in re.findall(FORWARD.format(r"(\d+)"), self.log)]

    @property
    def log(self) -> str:
        """What the engines have written to stderr."""
        return Path(self._log.name).read_text()

    def kill(self) -> None:
        """Kills the engine; the next one starts at once."""
        self.process.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """Ends the engine, and starts no more."""
        self._stopping = True
        self.kill()
        self._thread.join()
        for file in (self._listener, self._deaths, self._log):
            file.close()


@contextlib.asynccontextmanager
async def connected(
    engines: KnownEngines, arena_bytes: int = 2**20, silent_s: float = 60
) -> AsyncIterator[EngineClient]:
    """A client that is connected, and stopped afterwards."""
    client = EngineClient([engines.address], MODELS, arena_bytes, silent_s)
    await client.start()
    await until(lambda: client.ready)
    try:
        yield client
    finally:
        await client.stop()


SUBMIT = Submit(1, 0, "image", DTYPES[0], (8, 8, 3), ("mean",), Slot(192, 64), deadline=1e9)
"""A job that makes sense in an arena of 4096 bytes."""


def in_flight(client: EngineClient) -> int:
    """How many jobs the client has sent and not had answered."""
    return sum(link.load for link in client._links)


def ask(
    client: EngineClient, value: int, outputs: Sequence[str] = ("mean",), within_s: float = 30
) -> Coroutine[Any, Any, Result]:
    """Runs the picture of one colour on the first model."""
    return client.run(SPEC, "image", picture(value), shapes(*outputs), deadline=time.monotonic() + within_s)


def ask_all(client: EngineClient, values: Sequence[int]) -> list[asyncio.Task[Result]]:
    """A task for each picture."""
    return [asyncio.ensure_future(ask(client, value)) for value in values]


def assert_answered(value: int, result: Result | BaseException) -> None:
    """The result is the one of the picture of this value."""
    assert isinstance(result, Result), result
    np.testing.assert_array_equal(result.outputs["mean"], [value] * 3)
