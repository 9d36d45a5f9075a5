"""A worker's end of the engine: arena, connection, and a future for each job.

An engine crash costs latency, not requests. The worker sees EOF, connects again (that waits in the backlog until the
new engine is up), passes its arena again and sends the unanswered jobs once more: their pixels are still there. A job
that was *running* when an engine died is a suspect: it runs alone next time, and if that engine dies too it is
answered 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from iei.engine.api import Result
from iei.engine.arena import Arena
from iei.engine.frames import (
    DTYPES,
    FRAME_BYTES,
    FrameBuffer,
    Hello,
    Kind,
    Progress,
    Reply,
    Status,
    Submit,
    outputs_mask,
    outputs_named,
)
from iei.engine.launch import EngineAddress, LaunchedEngine
from iei.errors import BackendFailed, IEIError, InvalidInput, Overloaded, Unhealthy
from iei.models.catalog import catalog
from iei.models.spec import MODALITIES, POOLED, Modality, ModelSpec
from iei.settings import Settings

log = logging.getLogger(__name__)

RECONNECT_DELAY_S = 0.2
CRASHES_ALLOWED = 1
"""In how many crashes a job may have been running before it is taken for the cause."""
REPLY_GRACE_S = 5.0
"""The engine drops what has expired when it comes to it; only when even that does not happen does the worker."""
SILENT_S = 60.0
"""An engine that has jobs and answers none for so long hangs, or as good as: readiness says so."""
SPEC_BYTES = 64 * 1024


@dataclass(slots=True, eq=False)
class Pending:
    """A job that the engine owes a reply."""

    frame: Submit
    future: asyncio.Future[tuple[Reply, bytes]]


class Link:
    """One connection to one engine, made again whenever it breaks."""

    def __init__(self, address: EngineAddress, arena_bytes: int) -> None:
        self._address = address
        self._arena = Arena(arena_bytes)
        self._pending: dict[int, Pending] = {}
        self._ids = count(1)
        self._sock: socket.socket | None = None
        self._unsent = bytearray()
        self._broken = asyncio.Event()
        self._heard = time.monotonic()
        self._keeper = asyncio.create_task(self._keep_connected(), name="engine link")

    @property
    def up(self) -> bool:
        """Whether an engine with its model is at the other end."""
        return self._sock is not None and not self._broken.is_set()

    @property
    def answers(self) -> bool:
        """Whether it is up, and not silent over jobs that it has had for a long time."""
        return self.up and not (self._pending and time.monotonic() - self._heard > SILENT_S)

    @property
    def load(self) -> int:
        return len(self._pending)

    async def close(self) -> None:
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        self._disconnect()
        self._arena.close()

    async def submit(self, frame: Submit, content: npt.NDArray[np.generic] | None = None) -> tuple[Reply, bytes]:
        """Sends a job and waits for its reply. Returns the reply and what the engine wrote.

        Raises:
            InvalidInput: the arena has not the room for it.
            Unhealthy: the job was running in two engines that died.
            TimeoutError: no reply, long after the deadline.
        """
        async with asyncio.timeout(max(0.0, frame.deadline - time.monotonic()) + REPLY_GRACE_S):
            try:
                slot = await self._arena.reserve(frame.slot_bytes)
            except ValueError as error:
                raise InvalidInput(f"is too large, or its outputs are: {error}") from error
        frame = frame._replace(slot=slot, job=next(self._ids))
        self._arena.memory.view(slot, 1)[0] = Progress.WAITING
        if content is not None:
            region = self._arena.memory.view(frame.input_offset, frame.input_bytes)
            region.view(content.dtype).reshape(content.shape)[...] = content
        future: asyncio.Future[tuple[Reply, bytes]] = asyncio.get_running_loop().create_future()
        if not self._pending:
            self._heard = time.monotonic()
        self._pending[frame.job] = Pending(frame, future)
        if self.up:
            self._send(frame.pack())
        try:
            async with asyncio.timeout(max(0.0, frame.deadline - time.monotonic()) + REPLY_GRACE_S):
                return await future
        except (asyncio.CancelledError, TimeoutError):
            if frame.job not in self._pending:
                pass  # answered in this very turn of the loop
            elif self._sock is None:
                self._finish(frame)
            else:  # the slot stays the engine's until its reply comes
                self._send(frame._replace(kind=Kind.CANCEL).pack())
            raise

    # the connection

    async def _keep_connected(self) -> None:
        while True:
            try:
                await self._connect()
                await self._broken.wait()
                log.warning("the engine is gone: waiting for the next one, with %d jobs in hand", len(self._pending))
            except OSError as error:
                log.debug("no engine yet: %s", error)
                await asyncio.sleep(RECONNECT_DELAY_S)
            self._disconnect()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, str(self._address.path))
            memory = self._arena.memory
            socket.send_fds(sock, [Hello(memory.nbytes, os.getpid()).pack()], [memory.fd])
            welcome = b""
            while len(welcome) < FRAME_BYTES:  # it comes once the engine has its model
                data = await loop.sock_recv(sock, FRAME_BYTES - len(welcome))
                if not data:
                    raise ConnectionResetError("the engine ended before it was ready")
                welcome += data
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self._frames = FrameBuffer()
        self._broken.clear()
        loop.add_reader(sock.fileno(), self._receive)
        for pending in list(self._pending.values()):
            self._send(pending.frame.pack())

    def _disconnect(self) -> None:
        if self._sock is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock.fileno())
        loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._sock = None
        self._unsent.clear()
        for pending in list(self._pending.values()):
            self._survive_crash(pending)

    def _survive_crash(self, pending: Pending) -> None:
        """Keeps a job for the next engine, unless nobody waits for it or it is likely to have been the cause."""
        frame = pending.frame
        if pending.future.done():  # given up
            self._finish(frame)
            return
        progress = self._arena.memory.view(frame.slot, 1)
        if progress[0] == Progress.RUNNING:
            frame = pending.frame = frame._replace(attempt=frame.attempt + 1)
            if frame.attempt > CRASHES_ALLOWED:
                self._finish(frame)
                pending.future.set_exception(
                    Unhealthy("the engine died twice while it ran this input; it will not be tried again")
                )
        progress[0] = Progress.WAITING

    # frames

    def _send(self, data: bytes) -> None:
        self._unsent += data
        self._flush()

    def _flush(self) -> None:
        assert self._sock is not None
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
            loop.remove_writer(self._sock.fileno())
        except BlockingIOError:
            loop.add_writer(self._sock.fileno(), self._flush)
        except OSError:
            self._broken.set()

    def _receive(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(64 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._broken.set()
            return
        for frame in self._frames.feed(data):
            self._on_reply(Reply.unpack(frame))

    def _on_reply(self, reply: Reply) -> None:
        self._heard = time.monotonic()
        pending = self._pending[reply.job]
        content = self._arena.memory.view(pending.frame.output_offset, reply.nbytes).tobytes()
        self._finish(pending.frame)
        if not pending.future.done():
            pending.future.set_result((reply, content))

    def _finish(self, frame: Submit) -> None:
        del self._pending[frame.job]
        self._arena.release(frame.slot)


class EngineClient:
    """The engines of a machine, one link each; every job goes to the one with the least to do.

    Made before the workers are forked: it opens nothing until `start`.
    """

    def __init__(self, addresses: Sequence[EngineAddress], models: Sequence[str], arena_bytes: int) -> None:
        self._addresses = addresses
        self._models = list(models)
        self._arena_bytes = arena_bytes
        self._links: list[Link] = []
        self._specs: dict[str, ModelSpec] = {models[0]: self.default}

    @property
    def default(self) -> ModelSpec:
        return self._addresses[0].default

    @property
    def ready(self) -> bool:
        return any(link.answers for link in self._links)

    async def start(self) -> None:
        self._links = [Link(address, self._arena_bytes) for address in self._addresses]

    async def stop(self) -> None:
        for link in self._links:
            await link.close()
        self._links = []

    async def describe(self, model: str, *, deadline: float) -> ModelSpec:
        if model not in self._specs:
            frame = Submit(
                Kind.DESCRIBE, 0, model=self._models.index(model), output_bytes=SPEC_BYTES, deadline=deadline
            )
            _, content = await self._run(frame)
            self._specs[model] = ModelSpec.from_json(content)
        return self._specs[model]

    async def run(
        self,
        spec: ModelSpec,
        modality: Modality,
        array: npt.NDArray[np.generic],
        outputs: Sequence[str],
        *,
        deadline: float,
    ) -> Result:
        mask = outputs_mask(tuple(outputs))
        layout = output_layout(spec, modality, array, outputs_named(mask))
        shape = array.shape + (0,) * (3 - array.ndim)
        frame = Submit(
            Kind.SUBMIT,
            job=0,
            model=self._models.index(spec.name),
            modality=MODALITIES.index(modality),
            dtype=DTYPES.index(array.dtype),
            outputs=mask,
            shape=(shape[0], shape[1], shape[2]),
            input_bytes=array.nbytes,
            output_bytes=max(4 * sum(rows * dim for _, rows, dim in layout), ERROR_BYTES),
            deadline=deadline,
        )
        reply, content = await self._run(frame, array)
        return Result(parse_outputs(layout, content), reply.queue_s, reply.inference_s)

    async def _run(self, frame: Submit, content: npt.NDArray[np.generic] | None = None) -> tuple[Reply, bytes]:
        if not self._links:
            raise Unhealthy("this worker is stopping")
        link = min(self._links, key=lambda link: (not link.up, link.load))
        try:
            reply, written = await link.submit(frame, content)
        except TimeoutError:
            if link.up:
                raise Overloaded("the model did not come to this input in time (IEI_REQUEST_TIMEOUT_S)") from None
            raise Unhealthy("the engine is not there: it is being restarted") from None
        if reply.status == Status.OK:
            return reply, written
        text = written.decode(errors="ignore")  # cut to fit its slot, perhaps within a character
        raise _STATUS_ERRORS[Status(reply.status)](text or _STATUS_TEXTS[Status(reply.status)])


def connect(engines: Sequence[LaunchedEngine], settings: Settings) -> EngineClient:
    """A client of all `engines`. Opens nothing until it is started: make it before the workers are forked."""
    return EngineClient([engine.address for engine in engines], catalog(settings).names, settings.arena_bytes)


ERROR_BYTES = 512
"""Room for the text of an error, where vectors need less."""

_STATUS_ERRORS: dict[Status, type[IEIError]] = {
    Status.FAILED: BackendFailed,
    Status.CANCELLED: Overloaded,
    Status.EXPIRED: Overloaded,
    Status.UNAVAILABLE: BackendFailed,
}
_STATUS_TEXTS = {
    Status.CANCELLED: "the job was cancelled",
    Status.EXPIRED: "this input waited for the model longer than it may (IEI_REQUEST_TIMEOUT_S)",
}


def output_layout(
    spec: ModelSpec, modality: Modality, array: npt.NDArray[np.generic], outputs: Sequence[str]
) -> list[tuple[str, int, int]]:
    """(name, rows, dim) of each output, in the order in which they lie in memory."""
    tower = spec.tower_for(modality)
    assert tower is not None
    return [(name, tower.rows(name, array.shape), tower.outputs[name]) for name in outputs]


def parse_outputs(layout: Sequence[tuple[str, int, int]], content: bytes) -> dict[str, npt.NDArray[np.float32]]:
    values = np.frombuffer(content, np.float32)
    if len(values) != sum(rows * dim for _, rows, dim in layout):
        raise BackendFailed("the result has not the shape that the model's description says")
    parsed: dict[str, npt.NDArray[np.float32]] = {}
    start = 0
    for name, rows, dim in layout:
        part = values[start : start + rows * dim]
        parsed[name] = part if name in POOLED else part.reshape(rows, dim)
        start += rows * dim
    return parsed
