"""What an engine does with requests: finds their model, batches and runs them, and answers every one of them once.

It knows neither sockets nor asyncio: `process` and `inprocess` bring requests to it, each in its own way.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from iei.engine.answers import Answer, Forward, Status
from iei.engine.batcher import Batcher, Job, batch_key, most_together
from iei.engine.execute import Failure, Outcome, Task, execute
from iei.engine.loaded_models import LoadedModels
from iei.engine.meter import Meter
from iei.engine.watchdog import Watchdog
from iei.priority import Priority
from iei.runtimes.api import Model


@dataclass(frozen=True, slots=True)
class Request:
    """An input to run, or a question what a model is."""

    owner: Hashable
    """Whoever submitted it: `forget` drops all requests of one owner."""
    id: int
    """Unique among the unanswered requests of the owner."""
    model: int
    """Place in the catalog."""
    task: Task | None
    """None asks for the description of the model."""
    deadline: float
    """`time.monotonic()` after which it is not run. Descriptions have none: a download may take as long as it likes."""
    reply: Callable[[Answer], None]
    """Called once with the answer, unless the owner is forgotten before."""
    starts: Callable[[], None] = lambda: None
    """Called before every forward that the request is part of."""
    alone: bool = False
    """Not batched with others, because an engine died while it ran this request."""
    priority: Priority = Priority.INTERACTIVE


class Scheduler:
    """The one place where jobs wait and run. All methods are for one thread, and only `step` computes.

    Its user calls `step` whenever it is `busy`, and `models_arrived` whenever `wakeup` is readable, then `step`.
    """

    def __init__(self, models: LoadedModels, *, timeout_s: float | None = None, meter: Meter | None = None) -> None:
        """Schedules requests for `models`, of which the first is loaded.

        Args:
            models: what can be run; the first one's `max_batch` is the largest batch of all.
            timeout_s: a forward that takes longer ends the process. None: forwards may take as long as they like.
            meter: counts what is run. None: nobody wants to know.
        """
        self.wakeup = models.wakeup
        """A file descriptor, readable when models have arrived."""
        self._models = models
        self._timeout_s = timeout_s
        self._pid = os.getpid()
        self._meter = meter or Meter()
        self._meter.loaded(models.loaded)
        self._batcher: Batcher[Request] = Batcher(models.default.max_batch)
        self._parked: defaultdict[int, list[Request]] = defaultdict(list)
        """Requests that wait for a model which is on its way, by model."""

    @property
    def busy(self) -> bool:
        """Whether `step` has something to run."""
        return len(self._batcher) > 0

    def submit(self, request: Request) -> None:
        """Takes a request: to the batcher, or to those that wait for its model; or answers it at once.

        Raises:
            ValueError: the catalog has no such model.
        """
        if request.model >= len(self._models.names):
            raise ValueError(f"there is no model {request.model}")
        if model := self._models.get(request.model):
            self._schedule(request, model)
        elif self._models.request(request.model):
            self._parked[request.model].append(request)
        else:
            name = self._models.names[request.model]
            request.reply(Answer(Status.UNAVAILABLE, f"{name} can't be loaded: the server's log says why"))

    def cancel(self, owner: Hashable, request_id: int) -> None:
        """Answers a request that still waits with CANCELLED, now or with the next steps, instead of running it."""
        self._batcher.cancel(owner, request_id)
        for parked in self._parked.values():
            for request in [each for each in parked if (each.owner, each.id) == (owner, request_id)]:
                parked.remove(request)
                request.reply(Answer(Status.CANCELLED))

    def forget(self, owner: Hashable) -> None:
        """Drops what the owner has waiting, without an answer: there is nobody to receive it."""
        self._batcher.forget(owner)
        for model, parked in self._parked.items():
            self._parked[model] = [request for request in parked if request.owner != owner]

    def models_arrived(self) -> None:
        """Schedules what waited for models that are loaded by now, and answers what waited for those that failed."""
        for index in self._models.collect():
            for request in self._parked.pop(index, []):
                self.submit(request)
        self._meter.loaded(self._models.loaded)

    def step(self) -> None:
        """Runs the next batch and answers it, and whatever was cancelled or has expired; then lets a model load.

        Raises:
            DeviceLost: this process can't compute any more. The batch has not been answered.
        """
        turn = self._batcher.next(time.monotonic())
        for job in turn.cancelled:
            job.payload.reply(Answer(Status.CANCELLED))
        for job in turn.expired:
            job.payload.reply(Answer(Status.EXPIRED))
        if turn.batch:
            self._run(turn.batch)
        self._models.load_next(self._batcher.oldest)
        self._meter.loaded(self._models.loaded)

    def _schedule(self, request: Request, model: Model) -> None:
        if request.task is None:
            request.reply(Answer(Status.OK, model.spec))
        else:
            self._batcher.add(_job(request, request.task, model), time.monotonic())

    def _run(self, batch: list[Job[Request]]) -> None:
        model = self._models.get(batch[0].payload.model)
        if model is None:  # evicted while these waited
            for job in batch:
                self.submit(job.payload)
            return
        for job in batch:
            job.payload.starts()
        started = time.monotonic()
        watched = model if self._timeout_s is None else Watchdog(model, self._timeout_s)
        tasks = [job.payload.task for job in batch if job.payload.task]
        with self._meter.forward(model.spec, tasks[0].modality, [job.priority for job in batch]):
            outcomes = execute(watched, tasks)
        inference_s = time.monotonic() - started
        for job, outcome in zip(batch, outcomes, strict=True):
            forward = Forward(started - job.enqueued, inference_s, len(batch), self._pid)
            job.payload.reply(_answer(outcome, forward))


def _job(request: Request, task: Task, model: Model) -> Job[Request]:
    return Job(
        owner=request.owner,
        id=request.id,
        key=batch_key(request.model, task.modality, task.array),
        deadline=request.deadline,
        payload=request,
        length=len(task.array) if task.modality == "text" else 0,
        most=most_together(model.spec, task.modality, task.array),
        alone=request.alone,
        priority=request.priority,
    )


def _answer(outcome: Outcome, forward: Forward) -> Answer:
    if isinstance(outcome, Failure):
        return Answer(Status.FAILED, outcome.message, forward)
    return Answer(Status.OK, outcome, forward)
