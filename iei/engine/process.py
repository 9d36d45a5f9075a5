"""The engine process: the only one with a model in it. One thread, in named steps: receive → batch → run → reply.

`python -m iei.engine.process CONFIG --listen FD --life FD [--status FD]`, started by the supervisor. It ends when
nobody can send it work any more: when the last process that holds the other end of `--life` is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import logging
import os
import selectors
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from iei.engine.arena import Memory
from iei.engine.batcher import Batcher, Job, Turn
from iei.engine.config import EngineConfig
from iei.engine.execute import Failure, Task, execute
from iei.engine.frames import (
    DTYPES,
    FRAME_BYTES,
    WELCOME,
    FrameBuffer,
    Hello,
    Kind,
    Progress,
    Reply,
    Status,
    Submit,
    outputs_named,
)
from iei.engine.residents import Load, Residents, load_torch
from iei.engine.runtimes import DeviceLost, Runtime
from iei.errors import StartupError
from iei.models.spec import MODALITIES
from iei.telemetry import logs

log = logging.getLogger("iei.engine")


class Payload(NamedTuple):
    """What a waiting job is about."""

    connection: Connection
    frame: Submit
    task: Task


class Connection:
    """One worker: its socket, its arena, and the frames that wait for room in the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pid = 0
        self.memory: Memory | None = None
        self._frames = FrameBuffer()
        self._unsent = bytearray()

    def receive(self) -> list[bytes] | None:
        """Frames that have arrived; None when the worker is gone. The first is its HELLO, answered here."""
        if self.memory is None:
            data, fds, _, _ = socket.recv_fds(self.sock, FRAME_BYTES, 1)
            if not data:
                return None
            hello = Hello.unpack(data)
            self.memory, self.pid = Memory(fds[0], hello.arena_bytes), hello.pid
            self.send(WELCOME)
            return []
        data = self.sock.recv(64 * 1024)
        return list(self._frames.feed(data)) if data else None

    def send(self, frame: bytes) -> None:
        self._unsent += frame
        self.flush()

    def flush(self) -> bool:
        """Sends what the socket takes; whether that was all. A worker that is gone is found out by `receive`."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._unsent:
                del self._unsent[: self.sock.send(self._unsent)]
        return not self._unsent

    def region(self, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        assert self.memory is not None
        return self.memory.view(offset, nbytes)

    def close(self) -> None:
        self.sock.close()
        if self.memory:
            self.memory.close()


class EngineProcess:
    def __init__(self, config: EngineConfig, listener: socket.socket, load: Load = load_torch) -> None:
        self._config = config
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._wakeup, self._wakeup_sender = socket.socketpair()
        self._wakeup.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._model_arrived)
        self._residents = Residents(config.models, config.max_loaded, lambda: self._wakeup_sender.send(b"\0"), load)
        self._parked: defaultdict[int, list[tuple[Connection, Submit]]] = defaultdict(list)
        self._batcher: Batcher[Payload] | None = None

    def load_first(self) -> Runtime:
        """The models that are there from the start; returns the default one.

        Raises:
            StartupError: one of them can't be loaded.
        """
        count = min(self._config.at_start, len(self._config.models))
        runtime, *_ = [self._residents.load_now(index) for index in range(count)]
        self._batcher = Batcher(runtime.max_batch)
        return runtime

    def serve_forever(self) -> None:
        while True:
            for key, events in self._selector.select(None if not self.batcher else 0):
                key.data(key.fileobj, events)
            if turn := self.batcher.next(time.monotonic()):
                self._take_turn(turn)

    @property
    def batcher(self) -> Batcher[Payload]:
        assert self._batcher is not None, "load_first comes first"
        return self._batcher

    # receive

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
        self.batcher.forget(connection)
        for index, parked in self._parked.items():
            self._parked[index] = [entry for entry in parked if entry[0] is not connection]
        connection.close()

    def _on_frame(self, connection: Connection, frame: Submit) -> None:
        if frame.kind == Kind.CANCEL:
            self.batcher.cancel(connection, frame.job)
        elif frame.kind not in (Kind.SUBMIT, Kind.DESCRIBE) or frame.model >= len(self._config.models):
            raise ValueError(f"frame of kind {frame.kind} for model {frame.model} makes no sense")
        elif (runtime := self._residents.get(frame.model)) is None:
            self._parked[frame.model].append((connection, frame))
            self._residents.request(frame.model)
        elif frame.kind == Kind.DESCRIBE:
            self._answer(connection, frame, Status.OK, runtime.spec.to_json())
        else:
            self._enqueue(connection, frame)

    def _model_arrived(self, _: Any, __: int) -> None:
        """A model has been loaded, or could not be: whoever waited for it is served."""
        self._wakeup.recv(1024)
        for index, error in self._residents.collect():
            for connection, frame in self._parked.pop(index, []):
                if error:
                    self._answer(connection, frame, Status.UNAVAILABLE, error.encode())
                else:
                    self._on_frame(connection, frame)

    # batch

    def _enqueue(self, connection: Connection, frame: Submit) -> None:
        shape = tuple(extent for extent in frame.shape if extent)
        pixels = connection.region(frame.input_offset, frame.input_bytes).view(DTYPES[frame.dtype]).reshape(shape)
        connection.region(frame.output_offset, frame.output_bytes)  # a range outside the arena is refused now
        modality = MODALITIES[frame.modality]
        is_text = modality == "text"
        job = Job(
            owner=connection,
            id=frame.job,
            key=(frame.model, modality, None if is_text else (shape, frame.dtype)),
            deadline=frame.deadline,
            payload=Payload(connection, frame, Task(pixels, outputs_named(frame.outputs))),
            length=shape[0] if is_text else 0,
            alone=frame.attempt > 0,
        )
        self.batcher.add(job, time.monotonic())

    # run

    def _take_turn(self, turn: Turn[Payload]) -> None:
        for job in turn.cancelled:
            self._answer(job.payload.connection, job.payload.frame, Status.CANCELLED)
        for job in turn.expired:
            self._answer(job.payload.connection, job.payload.frame, Status.EXPIRED)
        if turn.batch:
            self._run(turn.batch)

    def _run(self, batch: list[Job[Payload]]) -> None:
        frame = batch[0].payload.frame
        runtime = self._residents.get(frame.model)
        if runtime is None:  # evicted while these waited
            for job in batch:
                self._on_frame(job.payload.connection, job.payload.frame)
            return
        for job in batch:
            job.payload.connection.region(job.payload.frame.slot, 1)[0] = Progress.RUNNING
        started = time.monotonic()
        # A watchdog in C: it needs neither this thread nor the GIL to end a process that hangs in a driver.
        faulthandler.dump_traceback_later(self._config.timeout_s, exit=True)
        try:
            outcomes = execute(runtime, MODALITIES[frame.modality], [job.payload.task for job in batch])
        finally:
            faulthandler.cancel_dump_traceback_later()
        inference_s = time.monotonic() - started
        for job, outcome in zip(batch, outcomes, strict=True):
            timing = (started - job.enqueued, inference_s)
            connection, frame, task = job.payload
            if isinstance(outcome, Failure):
                self._answer(connection, frame, Status.FAILED, outcome.message.encode(), timing)
            else:
                vectors = b"".join(outcome[name].tobytes() for name in task.outputs)
                self._answer(connection, frame, Status.OK, vectors, timing)

    # reply

    def _answer(
        self,
        connection: Connection,
        frame: Submit,
        status: Status,
        content: bytes = b"",
        timing: tuple[float, float] = (0.0, 0.0),
    ) -> None:
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
    parser.add_argument("config")
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--life", type=int, required=True)
    parser.add_argument("--status", type=int)
    arguments = parser.parse_args()

    # Whoever stops the server stops its workers; the engine must outlive them to answer what they accepted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with(arguments.life)
    config = EngineConfig.from_json(arguments.config)
    logs.configure(config.log_level)
    engine = EngineProcess(config, socket.socket(fileno=arguments.listen))
    try:
        report: dict[str, Any] = {"ready": json.loads(engine.load_first().spec.to_json())}
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
        engine.serve_forever()
    except DeviceLost as error:
        # Not 3 or 4: gunicorn's master takes those, from any child, as an order to stop.
        log.error("the device is lost, a new engine will be started: %s", error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
