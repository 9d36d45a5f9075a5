"""The batching policy: turns waiting jobs into batches. No sockets, no torch, no clock of its own.

The policy is greedy and first come, first served: there is no timer that waits for a batch to fill. Whenever the device
is free, the oldest waiting job runs, together with as many jobs of its group as fit in one forward. So a lone request
runs at once, and batches form when requests arrive faster than they are computed.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from iei.models.spec import Modality, ModelSpec
from iei.runtimes.api import MAX_TOKENS

P = TypeVar("P")


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
    alone: bool = False
    """Never batched with others: an engine died while it ran this job."""
    cancelled: bool = False
    enqueued: float = 0.0
    order: int = 0


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
        self._groups: dict[Hashable, deque[Job[P]]] = {}
        self._waiting: dict[tuple[Hashable, int], Job[P]] = {}
        self._order = count()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def oldest(self) -> float:
        """When the job that has waited longest was added; infinity if none waits."""
        return min((group[0].enqueued for group in self._groups.values()), default=math.inf)

    def add(self, job: Job[P], now: float) -> None:
        """Queues a job. Its id must differ from those of its owner's waiting jobs."""
        job.enqueued, job.order = now, next(self._order)
        group = ("alone", job.order) if job.alone else ("key", job.key)
        self._groups.setdefault(group, deque()).append(job)
        self._waiting[job.owner, job.id] = job

    def cancel(self, owner: Hashable, job_id: int) -> None:
        """Marks a job, if it still waits: a later turn has it as cancelled instead of running it."""
        if job := self._waiting.get((owner, job_id)):
            job.cancelled = True

    def forget(self, owner: Hashable) -> None:
        """Drops the jobs of an owner that is gone: no turn will have them."""
        for key, group in list(self._groups.items()):
            self._put_back(key, deque(job for job in group if job.owner != owner))
        self._waiting = {mark: job for mark, job in self._waiting.items() if job.owner != owner}

    def next(self, now: float) -> Turn[P]:
        """The next batch, with cancelled and expired jobs found on the way to it. Empty only if nothing waits."""
        turn: Turn[P] = Turn([], [], [])
        while self._groups and not turn.batch:
            key = min(self._groups, key=lambda key: self._groups[key][0].order)
            group = self._groups[key]
            take = self._take_similar if group[0].length else self._take_oldest
            take(group, now, turn)
            self._put_back(key, group)
        for job in (*turn.batch, *turn.cancelled, *turn.expired):
            del self._waiting[job.owner, job.id]
        return turn

    def _take_oldest(self, group: deque[Job[P]], now: float, turn: Turn[P]) -> None:
        most = min(self.max_batch, group[0].most)
        while group and len(turn.batch) < most:
            job = group.popleft()
            _destination(job, now, turn, alive=turn.batch).append(job)

    def _take_similar(self, group: deque[Job[P]], now: float, turn: Turn[P]) -> None:
        """Batches the oldest job with those nearest to it in length, because padding costs as much as tokens."""
        alive: list[Job[P]] = []
        for job in group:
            _destination(job, now, turn, alive).append(job)
        group.clear()
        if not alive:
            return
        wanted = alive[0].length
        longest = 0
        # `nsmallest` is stable: among equals, first come, first served.
        for job in heapq.nsmallest(self.max_batch, alive, key=lambda job: abs(job.length - wanted)):
            longest = max(longest, job.length)
            if turn.batch and longest * (len(turn.batch) + 1) > self.max_tokens:
                break
            turn.batch.append(job)
        taken = {job.order for job in turn.batch}
        group.extend(job for job in alive if job.order not in taken)

    def _put_back(self, key: Hashable, group: deque[Job[P]]) -> None:
        if group:
            self._groups[key] = group
        else:
            self._groups.pop(key, None)


def _destination(job: Job[P], now: float, turn: Turn[P], alive: list[Job[P]]) -> list[Job[P]]:
    if job.cancelled:
        return turn.cancelled
    return turn.expired if job.deadline < now else alive


def batch_key(model: int, modality: Modality, array: npt.NDArray[np.generic]) -> Hashable:
    """Equal for inputs that can share a forward: texts of one model, or pictures of one model and shape."""
    return model, modality, None if modality == "text" else (array.shape, array.dtype)


def most_together(spec: ModelSpec, modality: Modality, array: npt.NDArray[np.generic]) -> int:
    """Most pictures like this one in a forward: no more pixels than `max_batch` pictures of the model's size have."""
    if modality == "text" or spec.image is None:
        return spec.max_batch
    height, width = spec.image.geometry.size
    return max(1, spec.max_batch * height * width * 3 // max(1, array.size))
