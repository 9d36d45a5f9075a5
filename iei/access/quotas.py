"""The limits of API keys, counted over all workers of a server.

The counters are in memory that the workers share, made before they are forked. A key with limits has a slot there: the
time at which its allowance of inputs per second will be whole again, and for each worker the inputs that it has in
work. File locks guard them (`iei.rows`), because the kernel releases the locks of a process that is killed: inputs in a
row that nobody has locked were left by a worker that died, and don't count.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import numpy.typing as npt

from iei.access.keys import Key, Limits
from iei.errors import InvalidField, QuotaExceeded
from iei.rows import Rows

_ROWS = 1024
"""Most workers at the same time, those included that still finish requests after a restart."""
_SLOTS = 4096
"""Most keys with limits that are in use at the same time."""


class Quotas:
    """The counters of all keys that have limits. Made before the workers are forked.

    Args:
        clock: in seconds; the same in all processes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, fd)
        self._rows = Rows(fd, _ROWS)
        # Not of the file: a write to memory that is a file ends the process if the disk is full. Only pages that are
        # written to are allocated.
        memory = mmap.mmap(-1, _SLOTS * (8 + 8 + 4 * _ROWS))
        self._ids: npt.NDArray[np.uint64] = np.frombuffer(memory, np.uint64, _SLOTS)
        """Of the key that has the slot; 0: nobody."""
        self._whole_at: npt.NDArray[np.float64] = np.frombuffer(memory, np.float64, _SLOTS, 8 * _SLOTS)
        """When the key may send a whole second's worth of inputs again; in the past: it may now."""
        self._held: npt.NDArray[np.int32] = np.frombuffer(memory, np.int32, offset=16 * _SLOTS).reshape(_SLOTS, _ROWS)
        """Inputs in work, by slot and worker."""
        self._row = 0

    def of(self, key: Key) -> Quota | None:
        """The quota of a key; None if it has no limits."""
        return Quota(self, key) if key.limits != Limits() else None

    def take(self, key: Key, count: int) -> int:
        """Counts `count` inputs of `key`, and returns its slot, for `give_back`.

        Raises:
            QuotaExceeded: they are more than it may send now.
        """
        with self._rows.exclusive():
            self._claim_row()
            slot = self._slot(int.from_bytes(key.digest[:8]) or 1)
            self._check_at_once(slot, key.limits.inputs_at_once, count)
            self._charge(slot, key.limits.inputs_per_s, count)
            self._held[slot, self._row] += count
            return slot

    def give_back(self, slot: int, count: int) -> None:
        """Ends what `take` began: the inputs have been answered. Needs no lock: nobody else writes to this cell."""
        self._held[slot, self._row] -= count

    def _claim_row(self) -> None:
        """Once in each worker: the first row that no living process has."""
        if self._rows.own is not None:
            return
        row = self._rows.claim(range(_ROWS))
        if row is None:
            raise RuntimeError(f"more than {_ROWS} workers share the limits of API keys")
        self._row = row
        self._held[self._ids != 0, self._row] = 0

    def _slot(self, key_id: int) -> int:
        """The slot of a key. If it has none: a free one, or that of a key that has not been used for longest."""
        (found,) = np.nonzero(self._ids == key_id)
        if found.size:
            return int(found[0])
        (free,) = np.nonzero(self._ids == 0)
        slot = int(free[0]) if free.size else int(np.where(self._held.any(1), np.inf, self._whole_at).argmin())
        self._ids[slot], self._whole_at[slot] = key_id, 0
        return slot

    def _check_at_once(self, slot: int, limit: int | None, count: int) -> None:
        if limit is None or self._held[slot].sum() + count <= limit:
            return
        self._forget_the_dead(slot)
        if (in_work := self._held[slot].sum()) + count > limit:
            raise QuotaExceeded(
                f"your API key may have {limit} inputs in work at once (inputs_at_once) and has {in_work} already: "
                "try again later",
                1,
            )

    def _forget_the_dead(self, slot: int) -> None:
        """Takes what died workers had in work off the count."""
        (rows,) = np.nonzero(self._held[slot])
        for row in rows.tolist():
            if not self._rows.is_alive(row):
                self._held[slot, row] = 0

    def _charge(self, slot: int, inputs_per_s: float | None, count: int) -> None:
        """A token bucket, as the time at which it is full: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm."""
        if inputs_per_s is None:
            return
        now = self._clock()
        whole_at = max(now, float(self._whole_at[slot])) + count / inputs_per_s
        wait = whole_at - now - burst(inputs_per_s) / inputs_per_s
        if wait > 1e-6:  # less is rounding: the clock counts years
            raise QuotaExceeded(
                f"your API key may send {inputs_per_s:g} inputs a second (inputs_per_s): try again in {wait:.1f} s",
                max(1, math.ceil(wait)),
            )
        self._whole_at[slot] = whole_at


def burst(inputs_per_s: float) -> float:
    """Most inputs that may come at once: one second's worth, or else nothing could be sent at less than 1 a second."""
    return max(1.0, inputs_per_s)


class Quota:
    """What one key may send."""

    def __init__(self, quotas: Quotas, key: Key) -> None:
        self._quotas = quotas
        self._key = key

    @contextmanager
    def taken(self, count: int, field: str) -> Iterator[None]:
        """Counts the inputs of a request, and has them in work for as long as the block runs.

        Args:
            count: how many.
            field: the dialect's name for the list of inputs.

        Raises:
            InvalidField: they are more than the key may ever send in one request.
            QuotaExceeded: they are more than it may send now.
        """
        limits = self._key.limits
        largest = {
            "inputs_per_s": burst(limits.inputs_per_s) if limits.inputs_per_s else math.inf,
            "inputs_at_once": limits.inputs_at_once or math.inf,
        }
        name = min(largest, key=largest.__getitem__)
        if count > largest[name]:
            raise InvalidField(
                f"{field} has {count} items, and your API key may send {math.floor(largest[name])} in one request "
                f"({name}): send fewer",
                field,
            )
        slot = self._quotas.take(self._key, count)
        try:
            yield
        finally:
            self._quotas.give_back(slot, count)


SENDER: ContextVar[Quota | None] = ContextVar("sender", default=None)
"""The quota of the request that this task works on; None: it has no limits of its own.

Set by the middleware that checks keys and read by `Admission`, the first that knows how many inputs a request has. The
dialects in between would only pass it on.
"""
