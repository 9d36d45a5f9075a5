"""Keeps one engine process running: start, watch, restart with backoff, stop.

`python -m iei.engine.supervisor CONFIG --listen FD --life FD --status FD --folder PATH`, started by `launch`. A process
of its own, because gunicorn's master must stay what it is, and without torch, so that it can start engines for ever.

It owns the listening socket and passes it down: a new engine answers where the old one did, and workers that connect in
between wait in the backlog.
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
import time
from pathlib import Path

from iei.engine.config import EngineConfig
from iei.telemetry import logs

log = logging.getLogger("iei.supervisor")

LONGEST_DELAY_S = 30.0
STABLE_AFTER_S = 60.0
"""An engine that ran this long did not die of starting: the next one starts at once."""


class Backoff:
    """How long to wait before the next start: not at all after a stable run, then twice as long each time."""

    def __init__(self) -> None:
        self._delay_s = 0.0

    def after(self, ran_s: float) -> float:
        if ran_s >= STABLE_AFTER_S:
            self._delay_s = 0.0
        delay = self._delay_s
        self._delay_s = min(max(0.5, 2 * delay), LONGEST_DELAY_S)
        return delay


def supervise(config: EngineConfig, listen_fd: int, life_fd: int, status_fd: int) -> None:
    """Runs engines, one after the other, until the last writer of `life_fd` is gone."""
    backoff = Backoff()
    first = True
    while True:
        started = time.monotonic()
        fds = [listen_fd, life_fd, *([status_fd] if first else [])]
        arguments = [config.to_json(), "--listen", str(listen_fd), "--life", str(life_fd)]
        if first:
            arguments += ["--status", str(status_fd)]
        with subprocess.Popen([sys.executable, "-m", "iei.engine.process", *arguments], pass_fds=fds) as engine:
            if first:
                os.close(status_fd)  # now it is the engine's alone: if that dies before it reports, the reader sees EOF
            code = engine.wait()
        first = False
        if is_over(life_fd, wait_s=0.1):  # whoever waited for a first engine that failed lets go at once
            return
        delay = backoff.after(time.monotonic() - started)
        log.error("the engine ended (%s); a new one starts %s", cause(code), f"in {delay} s" if delay else "at once")
        if is_over(life_fd, wait_s=delay):
            return


def is_over(life_fd: int, wait_s: float) -> bool:
    """Whether nobody is left to serve. Nothing is ever written: readable means that all writers are gone."""
    readable, _, _ = select.select([life_fd], [], [], wait_s)
    return bool(readable)


def cause(code: int) -> str:
    """An exit code in words, with the usual reason where there is one."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}: killed, perhaps because the machine ran out of memory" if name == "SIGKILL" else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    for name in ("--listen", "--life", "--status"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="of the socket; removed at the end")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    config = EngineConfig.from_json(arguments.config)
    logs.configure(config.log_level)
    try:
        supervise(config, arguments.listen, arguments.life, arguments.status)
    finally:  # it outlives everybody who connects, however they end
        shutil.rmtree(arguments.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
