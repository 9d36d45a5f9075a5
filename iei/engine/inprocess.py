"""The engine in this very process, behind the same interface: for tests, for `iei embed`, for engines others host."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from iei.engine.api import Result
from iei.engine.batcher import Batcher, Job, batch_key, most_together
from iei.engine.execute import Failure, Outcome, Task, execute
from iei.errors import BackendFailed, ModelNotFound, Overloaded, Unhealthy
from iei.models.spec import Modality, ModelSpec
from iei.runtimes.api import DeviceLost, Runtime


class Waiting(NamedTuple):
    task: Task
    modality: Modality
    future: asyncio.Future[Result]


class InProcessEngine:
    """Runs one loaded model in a thread. Everything but that thread lives on the event loop that started it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._batcher: Batcher[Waiting] = Batcher(runtime.max_batch)
        self._ids = count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def default(self) -> ModelSpec:
        return self._runtime.spec

    @property
    def ready(self) -> bool:
        return self._thread is not None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run_batches, name="engine", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        thread, self._thread = self._thread, None
        with self._changed:
            self._changed.notify()
        if thread:
            await asyncio.to_thread(thread.join)

    async def describe(self, model: str, *, deadline: float) -> ModelSpec:
        if model != self._runtime.spec.name:
            raise ModelNotFound(f"only {self._runtime.spec.name} is here")
        return self._runtime.spec

    async def run(
        self,
        spec: ModelSpec,
        modality: Modality,
        array: npt.NDArray[np.generic],
        outputs: Sequence[str],
        *,
        deadline: float,
    ) -> Result:
        if not self.ready:
            raise Unhealthy("the engine has been stopped")
        job = Job(
            owner=self,
            id=next(self._ids),
            key=batch_key(0, modality, array),
            deadline=deadline,
            payload=Waiting(Task(array, tuple(outputs)), modality, self._loop.create_future()),
            length=len(array) if modality == "text" else 0,
            most=most_together(spec, modality, array),
        )
        with self._changed:
            self._batcher.add(job, time.monotonic())
            self._changed.notify()
        try:
            return await job.payload.future
        except asyncio.CancelledError:
            with self._changed:
                self._batcher.cancel(self, job.id)
            raise

    def _run_batches(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._batcher or self._thread is None)
                if self._thread is None:
                    return
                turn = self._batcher.next(time.monotonic())
            for job in turn.expired:
                self._resolve(job, Overloaded("this input waited for the model longer than it may"))
            if turn.batch:
                self._run_batch(turn.batch)

    def _run_batch(self, batch: list[Job[Waiting]]) -> None:
        started = time.monotonic()
        try:
            outcomes = execute(self._runtime, batch[0].payload.modality, [job.payload.task for job in batch])
        except DeviceLost as error:  # nobody restarts this process: say so to whoever asks
            for job in batch:
                self._resolve(job, Unhealthy(f"the device is lost, this process has to be restarted: {error}"))
            return
        for job, outcome in zip(batch, outcomes, strict=True):
            self._resolve(job, _result(outcome, started - job.enqueued, time.monotonic() - started))

    def _resolve(self, job: Job[Waiting], result: Result | Exception) -> None:
        def on_loop() -> None:
            future = job.payload.future
            if future.done():  # nobody waits any more
                return
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        self._loop.call_soon_threadsafe(on_loop)


def _result(outcome: Outcome, queue_s: float, inference_s: float) -> Result | Exception:
    if isinstance(outcome, Failure):
        return BackendFailed(outcome.message)
    return Result(outcome, queue_s, inference_s)
