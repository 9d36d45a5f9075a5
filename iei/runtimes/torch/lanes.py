"""Splits a batch over a CPU's cores: each core computes a part of the batch instead of a part of every operation.

Threads that share operations wait for each other after each one, hundreds of times in a forward; when image decoders
need a core too, all of them wait for the thread that lost its core. Parts of a batch wait once, at the end. Measured on
two cores with a ViT-Tiny and nothing else running: 56 pictures a second, against 44 with shared operations.
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
    """One permanent thread for each lane.

    OpenMP gives every thread that starts operations a team of threads of its own, and keeps it. Since a part always
    goes to the same lane, only the first lanes ever have wide teams; in a shared pool, all threads would.
    """

    def __init__(self, threads: int) -> None:
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix=f"lane-{number}") for number in range(threads)]

    def run(self, work: Callable[[Sequence[I]], list[O]], batch: Sequence[I]) -> list[O]:
        """Returns what `work` returns for the whole batch, in order. A lone input is computed by all threads.

        Args:
            work: computes a part of the batch; called in the lanes' threads.
            batch: at least one input.

        Raises:
            Exception: what `work` raised, after all parts have ended.
        """
        lanes = min(len(self._lanes), len(batch))
        threads = len(self._lanes) // lanes

        def part(start: int, stop: int) -> list[O]:
            # Applies to the calling thread (OpenMP's nthreads-var is per thread) and the operations that it starts.
            torch.set_num_threads(threads)
            return work(batch[start:stop])

        bounds = [len(batch) * lane // lanes for lane in range(lanes + 1)]
        parts = [lane.submit(part, *ends) for lane, ends in zip(self._lanes, pairwise(bounds), strict=False)]
        wait(parts)  # for all, even if one failed: they still read the batch, whose memory is the caller's
        return list(chain.from_iterable(each.result() for each in parts))
