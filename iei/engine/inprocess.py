"""The engine in this very process, behind the same interface: for `iei embed`, tests, and engines that others host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count

import numpy as np
import numpy.typing as npt

from iei.engine.answers import Answer, Status, error_of
from iei.engine.api import Result
from iei.engine.execute import Task
from iei.engine.loaded_models import LoadedModels
from iei.engine.scheduler import Request, Scheduler
from iei.errors import ModelNotFound, Overloaded, Unhealthy
from iei.models.spec import Modality, ModelSpec
from iei.priority import PRIORITY
from iei.runtimes.api import Model

log = logging.getLogger(__name__)


class InProcessEngine:
    """Implements `Engine` with a scheduler in a thread. Everything else is done on the event loop that started it."""

    def __init__(self, models: Model | LoadedModels) -> None:
        """An engine for one model that is loaded, or for several of which the first is."""
        self._models = models if isinstance(models, LoadedModels) else LoadedModels.of(models)
        self._thread: SchedulerThread | None = None
        self._specs = {self._models.default.name: self._models.default}
        self._waiting: set[asyncio.Future[Answer]] = set()
        self._ids = count()

    @property
    def default(self) -> ModelSpec:
        """The first model."""
        return self._models.default

    @property
    def ready(self) -> bool:
        """Whether the engine has been started, has not been stopped and can compute."""
        return self._thread is not None and self._thread.fault is None

    @property
    def shared_bytes(self) -> int:
        """None: nothing is shared."""
        return 0

    async def start(self) -> None:
        """Starts the thread."""
        on_fault = partial(asyncio.get_running_loop().call_soon_threadsafe, self._fail_waiting)
        self._thread = SchedulerThread(Scheduler(self._models), on_fault)
        self._thread.start()

    async def stop(self) -> None:
        """Waits for the end of what has been begun, and fails what has not been answered by then."""
        thread, self._thread = self._thread, None
        if thread:
            thread.stop()
            await asyncio.to_thread(thread.join)
        self._fail_waiting()

    async def describe(self, model: str, *, deadline: float) -> ModelSpec:
        """As `Engine.describe`.

        Raises:
            ModelNotFound: the engine has no model of this name.
        """
        if model in self._specs:
            return self._specs[model]
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                answer = await self._answer(self._place(model), None, deadline)
        except TimeoutError:
            raise Overloaded(f"{model} is still being loaded: try again later") from None
        assert isinstance(answer.content, ModelSpec)
        return self._specs.setdefault(model, answer.content)

    async def run(
        self,
        spec: ModelSpec,
        modality: Modality,
        array: npt.NDArray[np.generic],
        shapes: Mapping[str, tuple[int, ...]],
        *,
        deadline: float,
    ) -> Result:
        """As `Engine.run`."""
        answer = await self._answer(self._place(spec.name), Task(modality, array, tuple(shapes)), deadline)
        assert isinstance(answer.content, dict)
        return Result(answer.content, answer.forward)

    def _place(self, model: str) -> int:
        if model not in self._models.names:
            raise ModelNotFound(f"only {', '.join(self._models.names)} is here")
        return self._models.names.index(model)

    async def _answer(self, model: int, task: Task | None, deadline: float) -> Answer:
        """The answer to a request, if it is OK; raises the error that it means otherwise."""
        if self._thread is None or self._thread.fault:
            raise self._unhealthy()
        thread = self._thread
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        reply = partial(_resolve_from_thread, future)
        request = Request(self, next(self._ids), model, task, deadline, reply, priority=PRIORITY.get())
        thread.call(lambda scheduler: scheduler.submit(request))
        try:
            answer = await future
        except asyncio.CancelledError:
            thread.call(lambda scheduler: scheduler.cancel(self, request.id))
            raise
        if answer.status != Status.OK:
            raise error_of(answer.status, str(answer.content))
        return answer

    def _fail_waiting(self) -> None:
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(self._unhealthy())

    def _unhealthy(self) -> Unhealthy:
        if self._thread and self._thread.fault:
            return Unhealthy(f"the engine can't compute any more, this process must be restarted: {self._thread.fault}")
        return Unhealthy("the engine has been stopped")


class SchedulerThread:
    """A thread in which a scheduler runs, until it is stopped or fails."""

    def __init__(self, scheduler: Scheduler, on_fault: Callable[[], object]) -> None:
        """Prepares the thread.

        Args:
            scheduler: used by nobody else from now on.
            on_fault: called in the thread after the scheduler has failed; `fault` is set then.
        """
        self.fault: Exception | None = None
        """Why the thread ended, if nobody stopped it."""
        self._scheduler = scheduler
        self._on_fault = on_fault
        self._commands: deque[Callable[[Scheduler], None]] = deque()
        self._stopping = False
        self._wakeup, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def call(self, command: Callable[[Scheduler], None]) -> None:
        """Has the thread call `command` between two batches. Ignored after `stop`."""
        if not self._stopping:
            self._commands.append(command)
            self._wake_up()

    def stop(self) -> None:
        """Ends the thread after the batches that have been begun; does not wait for that."""
        self._stopping = True
        self._wake_up()

    def join(self) -> None:
        """Waits for the end of the thread. To be called once, after `stop`."""
        self._thread.join()
        for fd in (self._wakeup, self._wake):
            os.close(fd)

    def _wake_up(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes the thread, too
            os.write(self._wake, b"\0")

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wakeup, selectors.EVENT_READ, self._on_commands)
                selector.register(self._scheduler.wakeup, selectors.EVENT_READ, self._scheduler.models_arrived)
                selector.register(self._scheduler.landed, selectors.EVENT_READ, lambda: None)  # the step acts on it
                while not self._stopping:
                    for key, _ in selector.select(self._scheduler.wait_s):
                        key.data()
                    self._scheduler.step()
                self._scheduler.drain()
        except Exception as error:
            log.error("the engine in this process has failed: %s", error, exc_info=error)
            self.fault = error
            self._on_fault()

    def _on_commands(self) -> None:
        os.read(self._wakeup, 4096)
        while self._commands:
            self._commands.popleft()(self._scheduler)


def _resolve_from_thread(future: asyncio.Future[Answer], answer: Answer) -> None:
    future.get_loop().call_soon_threadsafe(_resolve, future, answer)


def _resolve(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():  # whoever waited may have given up
        future.set_result(answer)
