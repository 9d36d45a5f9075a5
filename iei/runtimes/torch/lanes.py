"""A CPU's cores side by side: each takes a part of a batch, instead of all of them a part of every operation.

Threads that share an operation wait for each other after each one, hundreds of times in a forward; when the decoders of
the workers want a core too, everybody waits for the one that lost its turn. Parts of a batch wait once, at the end.
Measured on two cores with a ViT-Tiny and nothing else running: 56 pictures a second, against 44 with shared operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import chain, pairwise
from typing import TypeVar

import torch

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


class Lanes:
    """A thread for each lane, the same ones for ever: OpenMP gives every thread that asks a team of its own, and keeps
    it. Only the first lanes are ever given wide teams; were any thread to take any part, all of them would be."""

    def __init__(self, threads: int) -> None:
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix=f"lane-{number}") for number in range(threads)]

    def run(self, work: Callable[[Sequence[I]], list[O]], batch: Sequence[I]) -> list[O]:
        """`work` of the whole batch, in order, part by part. A lone input has all threads to itself."""
        lanes = min(len(self._lanes), len(batch))
        threads = len(self._lanes) // lanes

        def part(start: int, stop: int) -> list[O]:
            # Counts for the thread that says it (OpenMP's nthreads-var is per thread) and the operations it starts.
            torch.set_num_threads(threads)
            return work(batch[start:stop])

        bounds = [len(batch) * lane // lanes for lane in range(lanes + 1)]
        parts = [lane.submit(part, *ends) for lane, ends in zip(self._lanes, pairwise(bounds), strict=False)]
        wait(parts)  # all of them, also when one has failed: they read what the caller may take back
        return list(chain.from_iterable(each.result() for each in parts))
