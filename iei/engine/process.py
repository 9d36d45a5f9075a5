"""The engine process: the only one with a model in it. One thread, in named steps: receive → batch → run → reply.

`python -m iei.engine.process --listen FD --life FD --deaths FD [--status FD] < CONFIG`, started by the supervisor. It
ends when nobody can send it work any more: when the last process that holds the other end of `--life` is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import mmap
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from iei.engine.batcher import Batcher, Job, Turn, batch_key, most_together
from iei.engine.config import EngineConfig
from iei.engine.connection import Connection
from iei.engine.execute import Failure, Task, execute
from iei.engine.frames import DTYPES, Kind, Progress, Reply, Status, Submit, outputs_named, pack_outputs
from iei.engine.loaded_models import LoadedModels
from iei.engine.watchdog import Watchdog
from iei.errors import StartupError
from iei.models.spec import MODALITIES
from iei.runtimes.api import DeviceLost
from iei.telemetry import logs

log = logging.getLogger("iei.engine")


class Payload(NamedTuple):
    """What a job is about."""

    connection: Connection
    frame: Submit
    task: Task
    """Empty if the frame is a DESCRIBE."""


class EngineProcess:
    """
    Args:
        max_batch: most inputs in one forward.
    """

    def __init__(self, config: EngineConfig, listener: socket.socket, models: LoadedModels, max_batch: int) -> None:
        self._config = config
        self._listener = listener
        self._listener.setblocking(False)
        self._models = models
        self._batcher: Batcher[Payload] = Batcher(max_batch)
        self._parked: defaultdict[int, list[Job[Payload]]] = defaultdict(list)
        """Jobs that wait for a model which is on its way, by model."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(models.wakeup, selectors.EVENT_READ, self._model_arrived)

    def serve_forever(self) -> None:
        while True:
            for key, events in self._selector.select(None if not self._batcher else 0):
                key.data(key.fileobj, events)
            if turn := self._batcher.next(time.monotonic()):
                self._take_turn(turn)
            self._models.load_next(self._batcher.oldest)

    def _accept(self, _: Any, __: int) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, _address = self._listener.accept()
            sock.setblocking(False)
            connection = Connection(sock)
            self._selector.register(sock, selectors.EVENT_READ, self._receiver(connection))

    def _receiver(self, connection: Connection) -> Callable[[Any, int], None]:
        def on_event(_: Any, events: int) -> None:
            if events & selectors.EVENT_WRITE:
                self._watch(connection)
            if events & selectors.EVENT_READ:
                self._receive(connection)

        return on_event

    def _receive(self, connection: Connection) -> None:
        try:
            frames = connection.receive()
            if frames is None:
                log.debug("worker %d is gone", connection.pid)
                return self._drop(connection)
            for frame in frames:
                self._on_frame(connection, Submit.unpack(frame))
        except BlockingIOError:
            return
        except (ConnectionError, ValueError, IndexError) as error:
            log.error("closing the connection of worker %d: %s", connection.pid, error)
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        """The worker is gone, or not to be trusted: its arena is unmapped, its jobs are forgotten."""
        self._selector.unregister(connection.sock)
        self._batcher.forget(connection)
        for index, parked in self._parked.items():
            self._parked[index] = [job for job in parked if job.owner is not connection]
        connection.close()

    def _on_frame(self, connection: Connection, frame: Submit) -> None:
        """Whatever makes no sense is found out here, and raises ValueError or IndexError."""
        if frame.kind == Kind.CANCEL:
            self._cancel(connection, frame.job)
        elif frame.kind not in (Kind.SUBMIT, Kind.DESCRIBE) or frame.model >= len(self._config.models):
            raise ValueError(f"frame of kind {frame.kind} for model {frame.model} makes no sense")
        else:
            self._dispatch(_job(connection, frame))

    def _cancel(self, connection: Connection, job_id: int) -> None:
        self._batcher.cancel(connection, job_id)
        for index, parked in self._parked.items():
            for job in [job for job in parked if (job.owner, job.id) == (connection, job_id)]:
                self._parked[index].remove(job)
                self._answer(job, Status.CANCELLED)

    def _dispatch(self, job: Job[Payload]) -> None:
        """To the batcher, or to those who wait for the model, or straight back."""
        frame = job.payload.frame
        if runtime := self._models.get(frame.model):
            if frame.kind == Kind.DESCRIBE:
                self._answer(job, Status.OK, runtime.spec.to_json())
            else:
                job.most = most_together(runtime.spec, MODALITIES[frame.modality], job.payload.task.array)
                self._batcher.add(job, time.monotonic())
        elif self._models.request(frame.model):
            self._parked[frame.model].append(job)
        else:
            name = self._config.models[frame.model].name
            self._answer(job, Status.UNAVAILABLE, f"{name} can't be loaded: the server's log says why".encode())

    def _model_arrived(self, _: Any, __: int) -> None:
        """A model has been loaded, or could not be: whoever waited for it is served."""
        for index in self._models.collect():
            for job in self._parked.pop(index, []):
                self._dispatch(job)

    def _take_turn(self, turn: Turn[Payload]) -> None:
        for job in turn.cancelled:
            self._answer(job, Status.CANCELLED)
        for job in turn.expired:
            self._answer(job, Status.EXPIRED)
        if turn.batch:
            self._run(turn.batch)

    def _run(self, batch: list[Job[Payload]]) -> None:
        frame = batch[0].payload.frame
        runtime = self._models.get(frame.model)
        if runtime is None:  # evicted while these waited
            for job in batch:
                self._dispatch(job)
            return
        for job in batch:
            job.payload.connection.region(job.payload.frame.slot, 1)[0] = Progress.RUNNING
        started = time.monotonic()
        watched = Watchdog(runtime, self._config.timeout_s)
        outcomes = execute(watched, MODALITIES[frame.modality], [job.payload.task for job in batch])
        inference_s = time.monotonic() - started
        for job, outcome in zip(batch, outcomes, strict=True):
            timing = (started - job.enqueued, inference_s)
            if isinstance(outcome, Failure):
                self._answer(job, Status.FAILED, outcome.message.encode(), timing)
            else:
                self._answer(job, Status.OK, pack_outputs(outcome, job.payload.task.outputs), timing)

    def _answer(
        self, job: Job[Payload], status: Status, content: bytes = b"", timing: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        connection, frame, _ = job.payload
        if status == Status.OK and len(content) > frame.output_bytes:
            status, content = Status.FAILED, b"the result is larger than the model's description says"
        content = content[: frame.output_bytes]
        region = connection.region(frame.output_offset, len(content))
        region[:] = np.frombuffer(content, np.uint8)
        connection.send(Reply(frame.job, status, len(content), *timing).pack())
        self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        """Asks for write events only while something waits to be written."""
        if connection.sock.fileno() < 0:
            return
        events = selectors.EVENT_READ if connection.flush() else selectors.EVENT_READ | selectors.EVENT_WRITE
        if self._selector.get_key(connection.sock).events != events:
            self._selector.modify(connection.sock, events, self._receiver(connection))


def _job(connection: Connection, frame: Submit) -> Job[Payload]:
    """Raises ValueError or IndexError: the frame makes no sense."""
    connection.region(frame.slot, frame.slot_bytes)
    shape = tuple(extent for extent in frame.shape if extent) or (0,)
    content = connection.region(frame.input_offset, frame.input_bytes).view(DTYPES[frame.dtype]).reshape(shape)
    modality = MODALITIES[frame.modality]
    return Job(
        owner=connection,
        id=frame.job,
        key=batch_key(frame.model, modality, content),
        deadline=frame.deadline,
        payload=Payload(connection, frame, Task(content, outputs_named(frame.outputs))),
        length=content.shape[0] if modality == "text" else 0,
        alone=frame.attempt > 0,
    )


def end_with(life_fd: int) -> None:
    """Ends this process, at once and from a thread, when the last writer of the pipe is gone.

    A thread because it must also work while a model is being loaded or a forward runs.
    """

    def wait_for_the_end() -> None:
        os.read(life_fd, 1)
        os._exit(0)

    threading.Thread(target=wait_for_the_end, name="life", daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--listen", "--life", "--deaths"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--status", type=int, help="where the first engine of all says that it is ready")
    arguments = parser.parse_args()

    # Whoever stops the server stops its workers; the engine must outlive them to answer what they accepted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with(arguments.life)
    config = EngineConfig.from_json(sys.stdin.buffer.read())
    logs.configure(config.log_level)
    from iei.runtimes.torch import runtime as torch  # takes seconds, which nobody should need who imports this module

    models = LoadedModels(
        config.models,
        config.max_loaded,
        torch,
        mmap.mmap(arguments.deaths, len(config.models)),
        restarted=arguments.status is None,
    )
    try:
        default = models.load_first(config.at_start)
        report: dict[str, Any] = {"ready": json.loads(default.to_json())}
    except StartupError as error:
        report = {"failed": str(error)}
    if arguments.status is not None:
        with open(arguments.status, "w") as status:  # noqa: PTH123 - a file descriptor, not a path
            status.write(json.dumps(report))
    elif "failed" in report:
        log.error("%s", report["failed"])
    if "failed" in report:
        raise SystemExit(1)
    try:
        EngineProcess(config, socket.socket(fileno=arguments.listen), models, default.max_batch).serve_forever()
    except DeviceLost as error:
        log.error("the device is lost, a new engine will be started: %s", error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
