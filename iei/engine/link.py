"""One connection of a worker to one engine, made again whenever it breaks: the arena, and a future for each job.

An engine crash costs latency, not requests. The worker sees EOF, connects again (its connection waits in the backlog
until the new engine runs), passes its arena again and sends the unanswered jobs once more: their inputs are still in
the arena. A job that was running when an engine died may have caused that: it runs alone next time, and if that engine
dies, too, it fails with `Unhealthy`. That engines are killed from outside is hardly ever its fault: then it takes more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from iei.engine.address import EngineAddress
from iei.engine.arena import Arena
from iei.engine.frames import (
    FRAME_BYTES,
    Cancel,
    Describe,
    FrameBuffer,
    Hello,
    Progress,
    Reply,
    Submit,
    Welcome,
    unpack,
)
from iei.errors import InvalidInput, Unhealthy

log = logging.getLogger(__name__)

RECONNECT_DELAY_S = 0.2
ABANDONED_DELAY_S = 60.0
"""Between two attempts to connect when no supervisor is left that would start an engine."""
CRASHES_ALLOWED = 1
"""How many engines may crash while they run a job before the job is taken for the cause."""
KILLS_ALLOWED = 3
"""The same where the last of them was killed: mostly somebody else is the cause, and the job was just there."""
REPLY_GRACE_S = 5.0
"""How long after the deadline a worker waits for the engine, which drops expired jobs itself between two batches."""


@dataclass(slots=True, eq=False)
class Pending:
    """A job that has not been answered."""

    frame: Submit | Describe
    future: asyncio.Future[tuple[Reply, bytes]]


class Link:
    """A worker's connection to one engine. For the tasks of one event loop."""

    def __init__(self, address: EngineAddress, arena_bytes: int, silent_s: float) -> None:
        """Starts to connect, in a task, and keeps at it until `close`.

        Args:
            address: of the engine.
            arena_bytes: size of the shared memory for this engine.
            silent_s: an engine that has inputs and answers none for so long hangs.
        """
        self._address = address
        self._arena = Arena(arena_bytes)
        self._silent_s = silent_s
        self._pending: dict[int, Pending] = {}
        self._ids = count(1)
        self._sock: socket.socket | None = None
        self._frames = FrameBuffer()
        self._unsent = bytearray()
        self._is_full = False
        """Whether the socket took less than there was, and the rest is sent when it takes more."""
        self._broken = asyncio.Event()
        self._heard = time.monotonic()
        self._keeper = asyncio.create_task(self._keep_connected(), name="engine link")

    @property
    def up(self) -> bool:
        """Whether an engine with its model is at the other end."""
        return self._sock is not None and not self._broken.is_set()

    @property
    def answers(self) -> bool:
        """Whether it is up, and has answered within `silent_s` if it has inputs."""
        return self.up and not (self._has_inputs and time.monotonic() - self._heard > self._silent_s)

    @property
    def load(self) -> int:
        """How many jobs wait for their reply."""
        return len(self._pending)

    @property
    def shared_bytes(self) -> int:
        """How much of the arena is in use."""
        return self._arena.held

    async def close(self) -> None:
        """Disconnects and gives the arena up. Jobs that have not been answered never will be."""
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        self._disconnect()
        self._arena.close()

    async def submit(
        self, frame: Submit | Describe, content: npt.NDArray[np.generic] | None = None, *, deadline: float
    ) -> tuple[Reply, bytes]:
        """Sends a job and waits for its reply.

        Args:
            frame: the job; its id and the offset of its slot are set here.
            content: the input, of the size of the slot's input.
            deadline: `time.monotonic()` after which the reply is not needed.

        Returns:
            The reply, and what the engine wrote to the output region.

        Raises:
            InvalidInput: the job does not fit in the arena.
            Unhealthy: the job was running in two engines that died.
            TimeoutError: no reply, long after the deadline.
        """
        async with asyncio.timeout(_remaining_s(deadline)):
            try:
                offset = await self._arena.reserve(frame.slot.nbytes, frame.priority)
            except ValueError as error:
                raise InvalidInput(f"is too large, or its outputs are: {error}") from error
            slot = frame.slot._replace(offset=offset)
            frame = frame._replace(slot=slot, job=next(self._ids))
            self._arena.memory.view(slot.offset, 1)[0] = Progress.WAITING
            if content is not None:
                region = self._arena.memory.view(slot.input_offset, slot.input_bytes)
                region.view(content.dtype).reshape(content.shape)[...] = content
            future: asyncio.Future[tuple[Reply, bytes]] = asyncio.get_running_loop().create_future()
            if not self._has_inputs:
                self._heard = time.monotonic()
            self._pending[frame.job] = Pending(frame, future)
            if self.up:
                self._send(frame.pack())
            try:
                return await future
            except asyncio.CancelledError:  # by whoever asked, or because the time is over
                if frame.job not in self._pending:
                    pass  # answered in this very turn of the loop
                elif self._sock is None:
                    self._finish(frame)
                else:  # the slot stays the engine's until its reply comes
                    self._send(Cancel(frame.job).pack())
                raise

    @property
    def _has_inputs(self) -> bool:
        """Whether inputs wait for their reply. Descriptions don't count: they may wait for a download."""
        return any(isinstance(pending.frame, Submit) for pending in self._pending.values())

    async def _keep_connected(self) -> None:
        while True:
            try:
                await self._connect()
                await self._broken.wait()
                log.warning("the engine is gone: waiting for the next one, with %d unanswered jobs", len(self._pending))
            except (ConnectionRefusedError, FileNotFoundError) as error:
                # The supervisor keeps the socket open as long as it runs, even without an engine.
                log.error("there is no engine, and no supervisor that would start one (%s): restart the server", error)
                await asyncio.sleep(ABANDONED_DELAY_S)
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
            greeting = unpack(welcome)
            assert isinstance(greeting, Welcome)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self._heard = time.monotonic()
        self._frames = FrameBuffer()
        self._broken.clear()
        loop.add_reader(sock.fileno(), self._receive)
        for pending in list(self._pending.values()):
            if self._may_run(pending.frame, KILLS_ALLOWED if greeting.after_kill else CRASHES_ALLOWED):
                self._send(pending.frame.pack())

    def _may_run(self, frame: Submit | Describe, deaths_allowed: int) -> bool:
        """Gives a job up that has probably caused the deaths of the engines that ran it."""
        if isinstance(frame, Describe) or frame.attempt <= deaths_allowed:
            return True
        future = self._pending[frame.job].future
        self._finish(frame)
        if not future.done():
            future.set_exception(
                Unhealthy(f"{frame.attempt} engines died while they ran this input; it will not be tried again")
            )
        return False

    def _disconnect(self) -> None:
        if self._sock is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock.fileno())
        loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._sock = None
        self._unsent.clear()
        self._is_full = False
        for pending in list(self._pending.values()):
            self._survive_crash(pending)

    def _survive_crash(self, pending: Pending) -> None:
        """Keeps a job for the next engine, unless nobody waits for it."""
        frame = pending.frame
        if pending.future.done():  # whoever waited has given up
            self._finish(frame)
            return
        progress = self._arena.memory.view(frame.slot.offset, 1)
        if isinstance(frame, Submit) and progress[0] == Progress.RUNNING:
            pending.frame = frame._replace(attempt=frame.attempt + 1)
        progress[0] = Progress.WAITING

    def _send(self, data: bytes) -> None:
        self._unsent += data
        self._flush()

    def _flush(self) -> None:
        assert self._sock is not None
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
            if self._is_full:
                loop.remove_writer(self._sock.fileno())
            self._is_full = False
        except BlockingIOError:
            loop.add_writer(self._sock.fileno(), self._flush)
            self._is_full = True
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
        for frame in map(unpack, self._frames.feed(data)):
            assert isinstance(frame, Reply)
            self._on_reply(frame)

    def _on_reply(self, reply: Reply) -> None:
        self._heard = time.monotonic()
        pending = self._pending[reply.job]
        content = self._arena.memory.view(pending.frame.slot.output_offset, reply.nbytes).tobytes()
        self._finish(pending.frame)
        if not pending.future.done():
            pending.future.set_result((reply, content))

    def _finish(self, frame: Submit | Describe) -> None:
        del self._pending[frame.job]
        self._arena.release(frame.slot.offset)


def _remaining_s(deadline: float) -> float:
    """How long to wait for something that is needed by the deadline and for which the engine has some grace."""
    return max(0.0, deadline - time.monotonic()) + REPLY_GRACE_S
