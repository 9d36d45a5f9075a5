"""What an engine does with requests: finds their model, batches and runs them, and answers every one of them once.

It knows neither sockets nor asyncio: `process` and `inprocess` bring requests to it, each in its own way.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

from iei.engine.answers import Answer, Forward, Status
from iei.engine.batcher import Batcher, Job, Share, batch_key, decoded_pixels, most_together
from iei.engine.execute import Failure, Outcome, Task, begin, execute
from iei.engine.in_flight import InFlight
from iei.engine.lanes import Lanes
from iei.engine.loaded_models import LoadedModels
from iei.engine.meter import Meter
from iei.engine.watchdog import Timer, Watchdog
from iei.priority import Priority
from iei.runtimes.api import Model, Overlapping, Parallel


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

    Its user calls `step` after at most `wait_s`, and `models_arrived` whenever `wakeup` is readable, then `step`.
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
        self._timer = Timer(timeout_s)
        self._in_flight: InFlight[Request] = InFlight(self._timer)
        self._lanes: Lanes[Request] = Lanes(self._timer)
        self._pid = os.getpid()
        self._meter = meter or Meter()
        self._meter.loaded(models.loaded)
        self._batcher: Batcher[Request] = Batcher(models.default.max_batch)
        self._parked: defaultdict[int, list[Request]] = defaultdict(list)
        """Requests that wait for a model which is on its way, by model."""

    @property
    def busy(self) -> bool:
        """Whether something waits, or is in flight."""
        return len(self._batcher) + len(self._in_flight) + len(self._lanes) > 0

    @property
    def landed(self) -> int:
        """A file descriptor, readable while a batch is done that the next step will answer."""
        return self._lanes.wakeup

    @property
    def wait_s(self) -> float | None:
        """How long `step` may wait for requests to arrive, or for what is `landed`; None: until that happens."""
        if self._lanes:
            return 0.0 if self._must_land else self._lane_wait_s
        if not self._in_flight:
            return 0.0 if len(self._batcher) else self._timer.rest_s
        if self._in_flight.is_full or self._models.next_waits or self._batcher.fills_a_batch:
            return 0.0
        return self._in_flight.wait_s

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
        """Drops what the owner has waiting or in flight, without an answer: there is nobody to receive it."""
        self._batcher.forget(owner)
        self._in_flight.forget(owner)
        self._lanes.forget(owner)
        for model, parked in self._parked.items():
            self._parked[model] = [request for request in parked if request.owner != owner]

    def models_arrived(self) -> None:
        """Schedules what waited for models that are loaded by now, and answers what waited for those that failed."""
        for index in self._models.collect():
            for request in self._parked.pop(index, []):
                self.submit(request)
        self._meter.loaded(self._models.loaded)

    def step(self) -> None:
        """Does what is due: finishes the oldest batch in flight, or runs or begins the next; then lets a model load.

        What was cancelled, or has expired, is answered with the next batch.

        Raises:
            DeviceLost: this process can't compute any more. What was in flight has not been answered.
        """
        if (self._in_flight or self._lanes) and self.wait_s != 0.0:
            return
        if self._lanes and self._must_land:
            self._finish(self._lanes)
        elif self._in_flight.is_done or self._must_finish:
            self._finish(self._in_flight)
        else:
            self._take_turn()
        if not (self._in_flight or self._lanes):
            self._timer.rest()
            self._models.load_next(self._batcher.oldest)
        self._meter.loaded(self._models.loaded)

    def drain(self) -> None:
        """Finishes and answers all that is in flight.

        Raises:
            DeviceLost: as `step`.
        """
        while self._in_flight:
            self._finish(self._in_flight)
        while self._lanes:
            self._finish(self._lanes)

    @property
    def _must_land(self) -> bool:
        """Whether to finish a batch on a lane before anything else."""
        return self._lanes.is_done or self._lanes.is_full or self._models.next_waits

    @property
    def _lane_wait_s(self) -> float | None:
        """How long until the next batch is begun on a lane. None: it has all cores, once no lane is in use.

        Fewer inputs than lanes would leave cores idle: they wait for all of them, but not for a lane that takes longer
        than the last one did.
        """
        leader = self._batcher.leader
        if leader is None or self._models.next_waits or self._share(leader) is None:
            return None
        if self._lanes.inputs + self._batcher.waiting_with(leader) >= self._lanes_for(leader):
            return 0.0
        return max(0.0, leader.enqueued + self._lanes.last_s - time.monotonic()) if self._lanes else None

    def _share(self, leader: Job[Request]) -> Share | None:
        """What a batch with `leader` may be on a lane; None if it can't have one now."""
        lanes = self._lanes_for(leader)
        free = lanes - len(self._lanes)
        return self._batcher.share(leader, lanes, free) if lanes > 1 and free > 0 else None

    def _lanes_for(self, job: Job[Request]) -> int:
        """How many batches like this job may be computed at the same time."""
        model, task = self._models.get(job.payload.model), job.payload.task
        # A suspect runs while nothing else does, or the others would be suspects, too, when it ends the engine again.
        if job.alone or not task or not isinstance(model, Parallel):
            return 1
        return model.lanes(task.modality, task.array)

    @property
    def _must_finish(self) -> bool:
        """Whether there is nothing else to do than to wait for the oldest in flight."""
        may_begin = len(self._batcher) and not self._in_flight.is_full and not self._models.next_waits
        return len(self._in_flight) > 0 and not may_begin

    def _take_turn(self) -> None:
        leader = self._batcher.leader
        share = self._share(leader) if leader and self._lane_wait_s == 0.0 else None
        turn = self._batcher.next(time.monotonic(), share)
        for job in turn.cancelled:
            job.payload.reply(Answer(Status.CANCELLED))
        for job in turn.expired:
            job.payload.reply(Answer(Status.EXPIRED))
        if turn.batch:
            self._run(turn.batch, has_lane=share is not None)

    def _schedule(self, request: Request, model: Model) -> None:
        if request.task is None:
            request.reply(Answer(Status.OK, model.spec))
        else:
            self._batcher.add(_job(request, request.task, model), time.monotonic())

    def _run(self, batch: list[Job[Request]], *, has_lane: bool) -> None:
        model = self._models.get(batch[0].payload.model)
        if model is None:  # evicted while these waited
            for job in batch:
                self.submit(job.payload)
            return
        # As for lanes: not with a suspect.
        overlapping = model if isinstance(model, Overlapping) and not batch[0].alone else None
        # Others may have been dropped that led when it was decided.
        lanes = self._lanes_for(batch[0]) if has_lane else 1
        if overlapping is None and lanes < 2:
            self.drain()
        for job in batch:
            job.payload.starts()
        tasks = [job.payload.task for job in batch if job.payload.task]
        priorities = [job.priority for job in batch]
        watched = Watchdog(model, self._timer)
        if overlapping:
            self._meter.begins(model.spec, priorities)
            self._in_flight.begin(batch, partial(begin, overlapping, watched.run, tasks), model.spec)
            return
        if lanes > 1 and isinstance(model, Parallel):
            self._meter.begins(model.spec, priorities)
            self._lanes.begin(batch, partial(execute, model.run_on_lane, tasks), model.spec, lanes)
            return
        started = time.monotonic()
        with self._meter.forward(model.spec, tasks[0].modality, priorities):
            outcomes = execute(watched.run, tasks)
        self._answer(batch, outcomes, started, time.monotonic() - started)

    def _finish(self, begun: InFlight[Request] | Lanes[Request]) -> None:
        """Finishes a batch that was begun, and answers it."""
        landed = begun.finish()
        task = landed.jobs[0].payload.task
        assert task
        priorities = [job.priority for job in landed.jobs]
        self._meter.ended(landed.spec, task.modality, priorities, landed.device_s)
        self._answer(landed.jobs, landed.outcomes, landed.started, landed.seconds, landed.gone)

    def _answer(
        self,
        batch: Sequence[Job[Request]],
        outcomes: Sequence[Outcome],
        started: float,
        seconds: float,
        gone: Collection[Hashable] = (),
    ) -> None:
        for job, outcome in zip(batch, outcomes, strict=True):
            if job.owner not in gone:
                job.payload.reply(_answer(outcome, Forward(started - job.enqueued, seconds, len(batch), self._pid)))


def _job(request: Request, task: Task, model: Model) -> Job[Request]:
    return Job(
        owner=request.owner,
        id=request.id,
        key=batch_key(request.model, task.modality, task.array),
        deadline=request.deadline,
        payload=request,
        length=len(task.array) if task.modality == "text" else 0,
        most=most_together(model.spec, task.modality, task.array),
        pixels=decoded_pixels(task.modality, task.array),
        alone=request.alone,
        priority=request.priority,
    )


def _answer(outcome: Outcome, forward: Forward) -> Answer:
    if isinstance(outcome, Failure):
        return Answer(Status.FAILED, outcome.message, forward)
    return Answer(Status.OK, outcome, forward)
