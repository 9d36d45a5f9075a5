"""The engine process, the only one with a model in it: one thread that receives frames, runs batches and replies.

`python -m iei.engine.process --listen FD --life FD --deaths FD --counters FD --ready FD [--status FD] [--after-kill]
< CONFIG`,
started by the supervisor. It ends when nobody can send it work any more: when the last process that holds the other end
of `--life` is gone.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import mmap
import os
import selectors
import signal
import socket
import sys
import threading
import time
from functools import partial
from typing import Any

import numpy as np

from iei.engine.answers import Answer, Status
from iei.engine.config import EngineConfig
from iei.engine.connection import Connection, Pin, no_pin
from iei.engine.execute import Task
from iei.engine.frames import Cancel, Describe, Frame, Progress, Reply, Slot, Submit, Welcome, pack_outputs
from iei.engine.loaded_models import LoadedModels
from iei.engine.meter import Meter
from iei.engine.scheduler import Request, Scheduler
from iei.errors import StartupError
from iei.models.spec import ModelSpec
from iei.runtimes.api import DeviceLost, Outputs
from iei.telemetry import logs
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import METRICS

log = logging.getLogger("iei.engine")

ACCEPT_AGAIN_S = 1.0


FIRST = Welcome()
"""Of an engine that follows none that was killed."""


class EngineProcess:
    """Carries requests from the workers' connections to a scheduler, and its answers back."""

    def __init__(
        self, listener: socket.socket, scheduler: Scheduler, welcome: Welcome = FIRST, pin: Pin = no_pin
    ) -> None:
        """Serves those who connect to `listener`, and are answered with `welcome`, with what `scheduler` computes.

        `pin` is called with their arenas.
        """
        self._welcome = welcome
        self._pin = pin
        self._listener = listener
        self._listener.setblocking(False)
        self._scheduler = scheduler
        self._selector = selectors.DefaultSelector()
        self._listen_at = 0.0
        """When to listen again after a connection could not be accepted; a monotonic time in seconds."""
        self._is_short = False
        """Of descriptors or memory for another connection."""
        self._listen()
        self._selector.register(scheduler.wakeup, selectors.EVENT_READ, lambda _: scheduler.models_arrived())
        self._selector.register(scheduler.landed, selectors.EVENT_READ, lambda _: None)  # the step that follows acts

    def serve_forever(self) -> None:
        """Receives everything that has arrived, runs one batch, and so on.

        Raises:
            DeviceLost: this process can't compute any more.
        """
        while True:
            self._receive_all()
            self._scheduler.step()

    def _receive_all(self) -> None:
        """Handles what has arrived; waits for something as long as nothing has to be run."""
        # A function of its own: a variable of the endless loop would keep a closed connection's arena mapped.
        idle_s = None if self._is_listening else max(0.0, self._listen_at - time.monotonic())
        waits = [wait for wait in (self._scheduler.wait_s, idle_s) if wait is not None]
        for key, events in self._selector.select(min(waits, default=None)):
            key.data(events)
        if not self._is_listening and time.monotonic() >= self._listen_at:
            self._listen()

    def _listen(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ, lambda _: self._accept())
        self._is_listening = True

    def _accept(self) -> None:
        try:
            sock, _address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            return self._wait_for_resources(error)
        self._is_short = False
        sock.setblocking(False)
        connection = Connection(sock, self._welcome, self._pin)
        self._selector.register(sock, selectors.EVENT_READ, partial(self._on_event, connection))

    def _wait_for_resources(self, error: OSError) -> None:
        """A worker that can't be accepted now, mostly for want of descriptors, waits; the others are served on."""
        if not self._is_short:
            log.error("a worker can't connect, trying again every %g s: %s", ACCEPT_AGAIN_S, error)
        self._is_short = True
        self._selector.unregister(self._listener)  # it stays readable: waiting for it would be a busy loop
        self._is_listening = False
        self._listen_at = time.monotonic() + ACCEPT_AGAIN_S

    def _on_event(self, connection: Connection, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(connection)
        if events & selectors.EVENT_READ:
            self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        try:
            frames = connection.receive()
            if frames is None:
                log.debug("worker %d has closed its connection", connection.pid)
                return self._drop(connection)
            for frame in frames:
                self._on_frame(connection, frame)
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            log.error("closing the connection of worker %d: %s", connection.pid, error)
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        """Forgets a worker that is gone, or that sent what makes no sense: its jobs and its arena."""
        self._selector.unregister(connection.sock)
        self._scheduler.forget(connection)
        self._scheduler.drain()  # a device may still copy from the arena
        connection.close()

    def _on_frame(self, connection: Connection, frame: Frame) -> None:
        """Acts on a frame of a worker.

        Raises:
            ValueError: the frame makes no sense here, or names what is not there.
        """
        match frame:
            case Cancel():
                self._scheduler.cancel(connection, frame.job)
            case Submit() | Describe() if frame.job not in connection.unanswered:
                request = self._request(connection, frame)
                connection.unanswered.add(frame.job)
                self._scheduler.submit(request)
            case _:
                raise ValueError(f"an engine can't be sent {frame}")

    def _request(self, connection: Connection, frame: Submit | Describe) -> Request:
        """Raises ValueError if the frame's ranges do not lie in the arena, or its input does not fill its range."""
        connection.region(frame.slot.offset, frame.slot.nbytes)
        task, deadline, alone = None, math.inf, False
        if isinstance(frame, Submit):
            task, deadline, alone = _task(connection, frame), frame.deadline, frame.attempt > 0
        return Request(
            owner=connection,
            id=frame.job,
            model=frame.model,
            task=task,
            deadline=deadline,
            reply=partial(self._reply, connection, frame.job, frame.slot),
            starts=partial(_mark_running, connection, frame.slot),
            alone=alone,
            priority=frame.priority,
        )

    def _reply(self, connection: Connection, job: int, slot: Slot, answer: Answer) -> None:
        status, content = answer.status, _encoded(answer.content)
        if status == Status.OK and len(content) > slot.output_bytes:
            status, content = Status.FAILED, b"the result is larger than the model's description says"
        content = content[: slot.output_bytes]
        connection.region(slot.output_offset, len(content))[:] = np.frombuffer(content, np.uint8)
        connection.unanswered.discard(job)
        if not connection.send(Reply(job, status, len(content), answer.forward).pack()):
            self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        """Sends what waits to be sent, and asks for write events only while something is left."""
        if connection.sock.fileno() < 0:
            return
        events = selectors.EVENT_READ if connection.flush() else selectors.EVENT_READ | selectors.EVENT_WRITE
        if self._selector.get_key(connection.sock).events != events:
            self._selector.modify(connection.sock, events, partial(self._on_event, connection))


def _task(connection: Connection, frame: Submit) -> Task:
    """The input of a frame, where it lies in the arena. Raises ValueError if it does not have the frame's shape."""
    content = connection.region(frame.slot.input_offset, frame.slot.input_bytes)
    return Task(frame.modality, content.view(frame.dtype).reshape(frame.shape), frame.outputs)


def _mark_running(connection: Connection, slot: Slot) -> None:
    connection.region(slot.offset, 1)[0] = Progress.RUNNING


def _encoded(content: Outputs | ModelSpec | str) -> bytes:
    """What is written to an output region."""
    match content:
        case ModelSpec():
            return content.to_json()
        case str():
            return content.encode()
        case _:
            return pack_outputs(content)


def end_with(life_fd: int) -> None:
    """Ends this process, at once and from a thread, when the last writer of the pipe is gone.

    A thread because it must also work while a model is being loaded or a forward runs.
    """

    def wait_for_the_end() -> None:
        os.read(life_fd, 1)
        os._exit(0)

    threading.Thread(target=wait_for_the_end, name="life", daemon=True).start()


def main() -> None:
    """The program: loads the first models, reports, and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--listen", "--life", "--deaths", "--counters", "--ready"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--status", type=int, help="where the first engine of all reports that it is ready")
    parser.add_argument("--after-kill", action="store_true", help="the engine before this one got SIGKILL")
    arguments = parser.parse_args()

    # Whoever stops the server stops its workers; the engine must outlive them to answer what they accepted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with(arguments.life)
    config = EngineConfig.from_json(sys.stdin.buffer.read())
    logs.configure(config.logs)
    from iei.runtimes import loading, select  # takes seconds, which importing this module must not

    models = LoadedModels(
        config.models,
        config.max_loaded,
        loading,
        mmap.mmap(arguments.deaths, len(config.models)),
        restarted=arguments.status is None,
    )
    report = _load_first(models, config.at_start)
    if "failed" not in report:
        os.write(arguments.ready, b"\1")  # first: whoever reads the report counts on another engine after this one
    _send_report(report, arguments.status)
    if "failed" in report:
        raise SystemExit(1)
    counters = Counters(METRICS, arguments.counters)
    counters.join("engine")
    scheduler = Scheduler(models, timeout_s=config.timeout_s, meter=Meter(counters, select.device_memory))
    is_pinning = config.models[0].options.gpu_pin_arenas
    pin: Pin = partial(select.pin, models.default.device) if is_pinning else no_pin
    try:
        welcome = Welcome(after_kill=arguments.after_kill)
        EngineProcess(socket.socket(fileno=arguments.listen), scheduler, welcome, pin).serve_forever()
    except DeviceLost as error:
        log.error("the device is lost, a new engine will be started: %s", error)
        raise SystemExit(1) from None


def _load_first(models: LoadedModels, count: int) -> dict[str, Any]:
    """The report for `launch`: `ready` with the description of the default model, or `failed` with the reason."""
    try:
        return {"ready": json.loads(models.load_first(count).to_json())}
    except StartupError as error:
        return {"failed": str(error)}


def _send_report(report: dict[str, Any], status_fd: int | None) -> None:
    """Writes the report to whoever waits for the first engine; later engines only log that they failed."""
    if status_fd is not None:
        with open(status_fd, "w") as status:  # noqa: PTH123 - a file descriptor, not a path
            status.write(json.dumps(report))
    elif "failed" in report:
        log.error("%s", report["failed"])


if __name__ == "__main__":
    main()
