"""Keeps one engine process running: start, watch, restart with backoff, stop.

`python -m iei.engine.supervisor --listen FD --life FD --status FD --folder PATH < CONFIG`, started by `launch`. A
process of its own, because gunicorn's master has its own children to watch, and without torch, so that a fault in an
engine can't reach it. The configuration is a file, as the list of models may be longer than arguments can be.

It owns the listening socket and passes it to each engine: a new engine listens where the old one did, and workers that
connect in between wait in the backlog.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from iei.engine.config import EngineConfig
from iei.telemetry import logs

log = logging.getLogger("iei.supervisor")

LONGEST_DELAY_S = 30.0
STABLE_AFTER_S = 60.0
"""An engine that ran this long started well: the next one starts at once."""


class Backoff:
    """How long to wait before the next start: not at all after a stable run, then twice as long each time."""

    def __init__(self) -> None:
        self._delay_s = 0.0

    def after(self, ran_s: float) -> float:
        """The delay, in seconds, after an engine that ran for `ran_s`."""
        if ran_s >= STABLE_AFTER_S:
            self._delay_s = 0.0
        delay = self._delay_s
        self._delay_s = min(max(0.5, 2 * delay), LONGEST_DELAY_S)
        return delay


def supervise(fds: dict[str, int]) -> None:
    """Runs engines, one after the other, until the last writer of `life` is gone.

    Args:
        fds: file descriptors for the engines, by the names of their arguments. `status` is for the first one only.
    """
    backoff = Backoff()
    while True:
        started = time.monotonic()
        end = run_engine(fds)
        if is_over(fds["life"], wait_s=0.1):  # `launch` closes its end at once if the first engine fails
            return
        delay = backoff.after(time.monotonic() - started)
        log.error("the engine ended (%s); a new one starts %s", end, f"in {delay} s" if delay else "at once")
        if is_over(fds["life"], wait_s=delay):
            return


def run_engine(fds: dict[str, int]) -> str:
    """Runs one engine with the descriptors `fds`; returns, in words, how it ended."""
    arguments = [word for name, fd in fds.items() for word in (f"--{name}", str(fd))]
    os.lseek(sys.stdin.fileno(), 0, os.SEEK_SET)  # every engine reads the same file
    try:
        engine = subprocess.Popen([sys.executable, "-m", "iei.engine.process", *arguments], pass_fds=[*fds.values()])
    except OSError as error:  # no memory or no process to be had, for now
        return str(error)
    finally:
        if "status" in fds:  # only the engine has it now: if that dies before it reports, the reader sees EOF
            os.close(fds.pop("status"))
    return cause(engine.wait())


def is_over(life_fd: int, wait_s: float) -> bool:
    """Whether nobody is left to serve, after `wait_s` at most. Nothing is ever written: readable means EOF."""
    readable, _, _ = select.select([life_fd], [], [], wait_s)
    return bool(readable)


def cause(code: int) -> str:
    """An exit code in words, with the usual reason if there is one."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}: killed, perhaps because the machine ran out of memory" if name == "SIGKILL" else name


def main() -> None:
    """The program: supervises engines until nobody needs one, and removes the socket."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--listen", "--life", "--status"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="of the socket; removed at the end")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    config = EngineConfig.from_json(sys.stdin.buffer.read())
    logs.configure(config.log_level)
    try:
        with tempfile.TemporaryFile() as deaths:
            deaths.truncate(len(config.models))
            fds = {name: getattr(arguments, name) for name in ("listen", "life", "status")}
            supervise({**fds, "deaths": deaths.fileno()})
    finally:  # all who connect have ended by now
        shutil.rmtree(arguments.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
