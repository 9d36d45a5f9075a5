"""A CPU's cores side by side: each takes a part of a batch, instead of all of them a part of every operation.

Threads that share an operation wait for each other after each one, hundreds of times in a forward; when the decoders of
the workers want a core too, everybody waits for the one that lost its turn. Parts of a batch wait once, at the end.
Measured on two cores with a ViT-Tiny and nothing else running: 56 pictures a second, against 44 with shared operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

import torch

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


class Lanes:
    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lane")

    def run(self, work: Callable[[Sequence[I]], list[O]], batch: Sequence[I]) -> list[O]:
        """`work` of the whole batch, in order, part by part. A lone input has all threads to itself."""
        lanes = min(self._threads, len(batch))
        threads = self._threads // lanes

        def part(start: int, stop: int) -> list[O]:
            # Counts for the thread that says it (OpenMP's nthreads-var is per thread) and the operations it starts.
            torch.set_num_threads(threads)
            return work(batch[start:stop])

        bounds = [len(batch) * lane // lanes for lane in range(lanes + 1)]
        return list(chain.from_iterable(self._pool.map(part, bounds[:-1], bounds[1:])))
