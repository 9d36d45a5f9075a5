"""A contender's server as processes of this machine: started, watched from outside, and ended with all of them."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil

from benchmarks import memory
from benchmarks.report import ROOT
from benchmarks.serving.contenders import Setup

START_S = 240.0
STOP_S = 20.0
MARK = "BENCHMARKED_SERVER"
"""Environment variable by which a server's processes are found, however they were started."""
FOREIGN = ("IEI_", "IMAGE_EMBEDDING_MODEL", "MODEL_", "POOLING_", "NORMALIZE_", "GUNICORN_", "OMP_", "MKL_", "OTEL_")
"""Beginnings of variables that would change a server, were they set outside."""


class NotReady(Exception):
    """A server ended, or did not answer in time. The message has the end of its log."""


@dataclass(frozen=True)
class Sample:
    """Seconds of CPU that have been used at one moment."""

    at_s: float
    machine_s: float
    """By all programs of the machine."""
    own_s: float
    """By this process, which makes the load."""
    server: dict[int, tuple[str, float]]
    """Process id → its role, and its seconds."""

    def cpu_ms(self, before: Sample, pictures: float) -> dict[str, float]:
        """Role → CPU-ms per picture since a sample. A process that is new counts from its start."""
        used: dict[str, float] = {}
        for pid, (role, seconds) in self.server.items():
            spent = seconds - before.server.get(pid, (role, 0.0))[1]
            used[role] = used.get(role, 0.0) + spent * 1e3 / pictures
        return used

    def others(self, before: Sample) -> float:
        """Cores that programs besides the server and the load have used since a sample."""
        ours = (self.own_s - before.own_s) + sum(self.cpu_ms(before, 1e3).values())
        return max(0.0, self.machine_s - before.machine_s - ours) / (self.at_s - before.at_s)


@dataclass(frozen=True)
class Running:
    """A server that has answered."""

    url: str
    master: subprocess.Popen[bytes]
    mark: str
    ready_s: float

    def processes(self) -> list[psutil.Process]:
        """All that are alive."""
        return _marked(self.mark)

    def sample(self) -> Sample:
        """Of this moment."""
        used = {}
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used[process.pid] = memory.role(process, self.master.pid), times.user + times.system
        machine = psutil.cpu_times()
        busy_s = sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice  # guests are in user
        return Sample(time.monotonic(), busy_s, time.process_time(), used)

    def pss_mib(self) -> dict[str, list[float]]:
        """Role → MiB of PSS of each of its processes."""
        return memory.by_role(self.master.pid, self.processes())


@contextlib.contextmanager
def running(
    setup: Setup, programs: Path, values: Mapping[str, str], answers: Callable[[str], bool], log_file: Path
) -> Iterator[Running]:
    """A server that answers.

    Args:
        setup: its command and environment.
        programs: the `bin` of the contender's environment.
        values: what stands in {} there, without the port.
        answers: whether the server at a URL does.
        log_file: of all its processes.

    Raises:
        NotReady: it does not become ready.
    """
    filled = {**values, "port": str(_free_port())}
    program, *arguments = shlex.split(setup.command)
    mark, started = uuid4().hex, time.monotonic()
    outside = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    with log_file.open("wb") as log:
        master = subprocess.Popen(
            [str(programs / program), *(argument.format(**filled) for argument in arguments)],
            cwd=ROOT,
            env={
                **outside,
                "PATH": f"{programs}:{outside.get('PATH', '')}",
                "HF_HUB_OFFLINE": "1",
                "BENCHMARK_MODEL": filled["model"],
                **{name: value.format(**filled) for name, value in setup.environment.items()},
                MARK: mark,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{filled['port']}"
    try:
        while not answers(url):
            if master.poll() is not None:
                raise NotReady(f"it ended with status {master.returncode}: {_end_of(log_file)}")
            if time.monotonic() - started > START_S:
                raise NotReady(f"no answer within {START_S:g} s: {_end_of(log_file)}")
            time.sleep(0.1)
        yield Running(url, master, mark, time.monotonic() - started)
    finally:
        _end(master, mark)


def _end(master: subprocess.Popen[bytes], mark: str) -> None:
    """SIGTERM to the master, as an operator would; SIGKILL to whatever that leaves."""
    if master.poll() is None:
        master.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            master.wait(STOP_S)
    left = _marked(mark)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=STOP_S)
    master.wait()


def _marked(mark: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _has(process, mark)]


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:  # it has just ended, or is somebody else's
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _end_of(log_file: Path, lines: int = 3) -> str:
    """The last lines of a log that say something."""
    said = [line.strip() for line in log_file.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(said[-lines:])[-500:] or "its log is empty"
