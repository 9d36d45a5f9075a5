"""The batching policy: turns waiting jobs into batches. No sockets, no torch, no clock of its own.

The policy is greedy: there is no timer that waits for a batch to fill. Whenever the device is free, the oldest waiting
job runs, together with as many jobs of its group as fit in one forward. So a lone request runs at once, and batches
form when requests arrive faster than they are computed.

The oldest interactive job goes before the oldest bulk job, and bulk fills what the interactive ones leave of a batch. A
bulk job that has been passed over too often leads a batch (`iei.line.Patience`).
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from iei.encoded import Encoded, is_encoded
from iei.line import Patience
from iei.models.spec import Modality, ModelSpec
from iei.priority import Priority
from iei.runtimes.api import MAX_TOKENS

P = TypeVar("P")

MAX_DECODED_PIXELS = 64_000_000
"""Most pixels of JPEGs in a batch that has several: 192 MB on the device, for each of the batches in flight."""

Group = tuple[deque["Job[P]"], ...]
"""Jobs that can share a forward, oldest first: the interactive ones, and those of bulk."""


@dataclass(slots=True, eq=False)
class Job(Generic[P]):
    """An input that waits to be run."""

    owner: Hashable
    """Who submitted it: `forget` drops all jobs of one owner."""
    id: int
    """Unique among the waiting jobs of its owner."""
    key: Hashable
    """Jobs of equal key can share a forward: `batch_key`."""
    deadline: float
    """Not run after this, in the caller's clock."""
    payload: P
    length: int = 0
    """In tokens, if inputs of a key may differ in length: a batch then has inputs of similar length. Else 0."""
    most: int = sys.maxsize
    """Most jobs in a batch of its key, if that is fewer than usual: `most_together`."""
    pixels: int = 0
    """That a forward decodes for it; 0 if there is nothing to decode."""
    alone: bool = False
    """Never batched with others: an engine died while it ran this job."""
    priority: Priority = Priority.INTERACTIVE
    cancelled: bool = False
    enqueued: float = 0.0
    order: int = 0


class Share(NamedTuple):
    """The most that a batch may be."""

    jobs: int
    tokens: int
    """Of texts, padding included; a single one may exceed it."""


@dataclass(frozen=True, slots=True)
class Turn(Generic[P]):
    """What the engine does next: run `batch`, and answer the others without running them."""

    batch: list[Job[P]]
    cancelled: list[Job[P]]
    expired: list[Job[P]]

    def __bool__(self) -> bool:
        return bool(self.batch or self.cancelled or self.expired)


class Batcher(Generic[P]):
    """The waiting jobs. For one thread: it has no locks."""

    def __init__(self, max_batch: int, max_tokens: int = MAX_TOKENS) -> None:
        """A batcher without jobs.

        Args:
            max_batch: most jobs in a batch.
            max_tokens: most tokens in a batch of texts, padding included; a single job may exceed it.
        """
        self.max_batch = max_batch
        self.max_tokens = max_tokens
        self._groups: dict[Hashable, Group[P]] = {}
        self._patience = Patience()
        self._waiting: dict[tuple[Hashable, int], Job[P]] = {}
        self._order = count()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def oldest(self) -> float:
        """When the job that has waited longest was added; infinity if none waits."""
        return min((job.enqueued for job in map(self._oldest, Priority) if job), default=math.inf)

    @property
    def fills_a_batch(self) -> bool:
        """Whether the next batch is full of interactive jobs, so that nothing can be added to it.

        One that is full for the pixels of its JPEGs does not count: it is begun a little later than it might be.
        """
        if not self._groups:
            return False
        leader = self._leader()
        if leader.priority is Priority.BULK:
            return False
        full = min(self.max_batch, leader.most)
        alive = (job for job in self._groups[_group_key(leader)][leader.priority] if not job.cancelled)
        return len(list(islice(alive, full))) == full

    @property
    def leader(self) -> Job[P] | None:
        """The job whose turn it is, if any waits. It may have been cancelled, or have expired."""
        return self._leader() if self._groups else None

    def waiting_with(self, job: Job[P]) -> int:
        """How many jobs wait that could share a forward with this one, itself included."""
        return sum(map(len, self._groups[_group_key(job)]))

    def add(self, job: Job[P], now: float) -> None:
        """Queues a job. Its id must differ from those of its owner's waiting jobs."""
        job.enqueued, job.order = now, next(self._order)
        self._groups.setdefault(_group_key(job), (deque(), deque()))[job.priority].append(job)
        self._waiting[job.owner, job.id] = job

    def cancel(self, owner: Hashable, job_id: int) -> None:
        """Marks a job, if it still waits: a later turn has it as cancelled instead of running it."""
        if job := self._waiting.get((owner, job_id)):
            job.cancelled = True

    def forget(self, owner: Hashable) -> None:
        """Drops the jobs of an owner that is gone: no turn will have them."""
        for jobs in chain.from_iterable(self._groups.values()):
            _keep(jobs, [job for job in jobs if job.owner != owner])
        self._groups = {key: group for key, group in self._groups.items() if any(group)}
        self._waiting = {mark: job for mark, job in self._waiting.items() if job.owner != owner}

    def share(self, leader: Job[P], lanes: int, free: int) -> Share | None:
        """What a batch with `leader` may be, if as many as `lanes` are computed at the same time, and some are free.

        All that waits is divided evenly among these. None: all together would be more than one batch may be.
        """
        jobs = min(self.max_batch, leader.most) // lanes
        tokens = self.max_tokens // lanes
        if not jobs or leader.length > tokens:
            return None
        return Share(min(jobs, math.ceil(self.waiting_with(leader) / free)), tokens)

    def next(self, now: float, share: Share | None = None) -> Turn[P]:
        """The next batch, with cancelled and expired jobs found on the way to it. Empty only if nothing waits.

        Args:
            now: the time, in the caller's clock.
            share: what it may be. None: as large as any.
        """
        limits = share or Share(self.max_batch, self.max_tokens)
        turn: Turn[P] = Turn([], [], [])
        patient = self._oldest(Priority.BULK)
        while self._groups and not turn.batch:
            leader = self._leader()
            key = _group_key(leader)
            group = self._groups[key]
            take = self._take_similar if leader.length else self._take_oldest
            take(group[leader.priority], now, turn, limits)
            if turn.batch:  # if all of these were dropped, it may be another group's turn
                take(group[1 - leader.priority], now, turn, limits)
            if not any(group):
                del self._groups[key]
        for job in (*turn.batch, *turn.cancelled, *turn.expired):
            del self._waiting[job.owner, job.id]
        self._patience.note(passed_over=patient is not None and (patient.owner, patient.id) in self._waiting)
        return turn

    def _leader(self) -> Job[P]:
        """The job whose turn it is; there must be one."""
        interactive, bulk = map(self._oldest, Priority)
        leader = bulk if bulk and self._patience.is_over else interactive or bulk
        assert leader
        return leader

    def _oldest(self, priority: Priority) -> Job[P] | None:
        heads = (group[priority][0] for group in self._groups.values() if group[priority])
        return min(heads, key=lambda job: job.order, default=None)

    def _take_oldest(self, jobs: deque[Job[P]], now: float, turn: Turn[P], limits: Share) -> None:
        while jobs and len(turn.batch) < min(limits.jobs, jobs[0].most) and _can_decode(jobs[0], turn.batch):
            job = jobs.popleft()
            _destination(job, now, turn, alive=turn.batch).append(job)

    def _take_similar(self, jobs: deque[Job[P]], now: float, turn: Turn[P], limits: Share) -> None:
        """Batches the oldest job with those nearest to it in length, because padding costs as much as tokens.

        What is added to a batch is padded to the longest there is: then those that are nearest to that.
        """
        alive: list[Job[P]] = []
        for job in jobs:
            _destination(job, now, turn, alive).append(job)
        longest = max((job.length for job in turn.batch), default=0)
        wanted = longest or (alive[0].length if alive else 0)
        # `nsmallest` is stable: among equals, first come, first served.
        for job in heapq.nsmallest(limits.jobs - len(turn.batch), alive, key=lambda job: abs(job.length - wanted)):
            longest = max(longest, job.length)
            if turn.batch and longest * (len(turn.batch) + 1) > limits.tokens:
                break
            turn.batch.append(job)
        taken = {job.order for job in turn.batch}
        _keep(jobs, [job for job in alive if job.order not in taken])


def _group_key(job: Job[P]) -> Hashable:
    return ("alone", job.order) if job.alone else ("key", job.key)


def _can_decode(job: Job[P], batch: list[Job[P]]) -> bool:
    """Whether a forward has memory to decode a job's picture with those of a batch. A lone one always has."""
    return not (job.pixels and batch) or job.pixels + sum(each.pixels for each in batch) <= MAX_DECODED_PIXELS


def _keep(jobs: deque[Job[P]], kept: Iterable[Job[P]]) -> None:
    jobs.clear()
    jobs.extend(kept)


def _destination(job: Job[P], now: float, turn: Turn[P], alive: list[Job[P]]) -> list[Job[P]]:
    if job.cancelled:
        return turn.cancelled
    return turn.expired if job.deadline < now else alive


def batch_key(model: int, modality: Modality, array: npt.NDArray[np.generic]) -> Hashable:
    """Equal for inputs that can share a forward: texts of one model, its JPEGs, or pictures of one shape."""
    is_of_any_shape = modality == "text" or is_encoded(modality, array)
    return model, modality, array.dtype if is_of_any_shape else (array.shape, array.dtype)


def decoded_pixels(modality: Modality, array: npt.NDArray[np.generic]) -> int:
    """How many pixels an engine decodes of an input."""
    if not is_encoded(modality, array):
        return 0
    jpeg = Encoded.unpack(array)
    return jpeg.height * jpeg.width


def most_together(spec: ModelSpec, modality: Modality, array: npt.NDArray[np.generic]) -> int:
    """Most pictures like this one in a forward: no more pixels than `max_batch` pictures of the model's size have."""
    if modality == "text" or spec.image is None or is_encoded(modality, array):
        return spec.max_batch
    height, width = spec.image.geometry.size
    return max(1, spec.max_batch * height * width * 3 // max(1, array.size))
