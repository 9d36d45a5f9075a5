"""Keeps one engine process running: start, watch, restart with backoff, stop.

`python -m iei.engine.supervisor --listen FD --life FD --deaths FD --counters FD --status FD --folder PATH --device NAME
--log-level LEVEL --log-format FORMAT < CONFIG`, started by `launch`. A process of its own, because gunicorn's master
has its own children to watch, and without torch, so that a fault in an engine can't reach it. A server is ready no
sooner than its engine, so this has few imports, and those of its own come when the first engine runs. The configuration
is for the engines, and a file, as the list of models may be longer than arguments can be.

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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("iei.supervisor")

DESCRIPTORS = ("listen", "life", "deaths", "counters", "status")
"""What the engines get, by the names of their arguments."""
LONGEST_DELAY_S = 30.0
NO_SURPRISE = ("exit code 0", "exit code 1")
"""How an engine ends that nobody needs any more, and one that has reported what is wrong, or printed a traceback."""


class End(NamedTuple):
    """How an engine ended."""

    cause: str
    """In words."""
    was_ready: bool
    """Whether it had its models, and so could serve."""
    was_killed: bool = False
    """Whether it got SIGKILL: from a person, or because the machine ran out of memory."""


class Backoff:
    """How long to wait before the next start: not at all after an engine that served, then twice as long each time.

    Only starts that fail are put off: they fail again until somebody has mended something. An engine that served may
    have died of one input, and the others wait for the next engine. Its start takes seconds, which is delay enough.
    """

    def __init__(self) -> None:
        self._delay_s = 0.0

    def after(self, end: End) -> float:
        """The delay, in seconds, after an engine that ended like this."""
        if end.was_ready:
            self._delay_s = 0.0
        delay = self._delay_s
        self._delay_s = min(max(0.5, 2 * delay), LONGEST_DELAY_S)
        return delay


def supervise(wait: Callable[[], End], fds: dict[str, int], restarted: Callable[[], None] = lambda: None) -> None:
    """Keeps an engine running until the last writer of `life` is gone.

    Where the first one never had its models there is no server: `launch` has read so from `status`, and gives up.

    Args:
        wait: for the end of the first one, as `start_engine` has returned it.
        fds: file descriptors for the others, by the names of their arguments.
        restarted: called whenever another engine is about to follow one that has ended.
    """
    end = wait()
    if not end.was_ready:
        if end.cause not in NO_SURPRISE:
            log.error("the engine ended (%s) before it had its models", end.cause)
        return
    backoff = Backoff()
    while not is_over(fds["life"], wait_s=0.1):  # the end of both may have one cause
        delay = backoff.after(end)
        log.error("the engine ended (%s); a new one starts %s", end.cause, f"in {delay} s" if delay else "at once")
        if is_over(fds["life"], wait_s=delay):
            return
        restarted()
        end = start_engine(fds, after_kill=end.was_killed)()


def start_engine(fds: dict[str, int], *, after_kill: bool = False) -> Callable[[], End]:
    """Starts an engine; returns what waits for its end, and says how it ended.

    Args:
        fds: file descriptors for it, by the names of their arguments. `status` is for the first one only: it is closed
            here, and taken out.
        after_kill: whether the one before got SIGKILL.
    """
    ready_reader, ready_writer = os.pipe()
    descriptors = {**fds, "ready": ready_writer}
    arguments = [word for name, fd in descriptors.items() for word in (f"--{name}", str(fd))]
    os.lseek(sys.stdin.fileno(), 0, os.SEEK_SET)  # every engine reads the same file
    try:
        command = [sys.executable, "-m", "iei.engine.process", *arguments, *["--after-kill"] * after_kill]
        engine = subprocess.Popen(command, pass_fds=[*descriptors.values()])
    except OSError as error:  # no memory or no process to be had, for now
        os.close(ready_reader)
        never_ran = End(str(error), was_ready=False)
        return lambda: never_ran
    finally:
        os.close(ready_writer)
        if "status" in fds:  # only the engine has it now: if that dies before it reports, the reader sees EOF
            os.close(fds.pop("status"))
    return partial(_end_of, engine, ready_reader)


def _end_of(engine: subprocess.Popen[bytes], ready_reader: int) -> End:
    code = engine.wait()
    with open(ready_reader, "rb") as ready:
        return End(cause(code), was_ready=ready.read() != b"", was_killed=code == -signal.SIGKILL)


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
    for name in DESCRIPTORS:
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="of the socket; removed at the end")
    for name in ("--device", "--log-level", "--log-format"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    fds = {name: getattr(arguments, name) for name in DESCRIPTORS}
    wait = start_engine(fds)
    try:
        from iei.telemetry import logs
        from iei.telemetry.counters import Counters
        from iei.telemetry.metrics import METRICS, RESTARTS

        logs.configure(logs.Form(arguments.log_level, arguments.log_format))
        counters = Counters(METRICS, arguments.counters)
        counters.join("supervisor")
        device = (arguments.device,)
        counters.add(RESTARTS, device, 0)
        supervise(wait, fds, partial(counters.add, RESTARTS, device))
    finally:  # all who connect have ended by now
        shutil.rmtree(arguments.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
