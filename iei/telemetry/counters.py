"""The numbers that the processes of a server count together, in memory that they share.

Each process has a row, which nobody else writes to, so that counting takes no lock. Each series, a metric with values
of its labels, has a column: the same one in all rows. A number is the sum of its column. Of processes that have ended,
what they counted stays, and their gauges don't count.

The memory has no name and is freed with the last process that has it. It is not a file on a disk or in /dev/shm, where
a write ends the process once that is full. Pages that are never written to take no memory.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import weakref
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from iei.machine import anonymous_memory
from iei.rows import Rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

log = logging.getLogger(__name__)

ROWS = 512
"""Most processes at the same time, and one: the first row is that of the server as a whole."""
COLUMNS = 16384
NAMES_BYTES = 2 * 2**20

Labels = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Metric:
    """What is counted."""

    name: str
    """Its name in Prometheus' text format, `_total` included."""
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = field(default=(), repr=False)
    """Upper bounds of a histogram's buckets; one more holds what is above."""
    is_shown: bool = True
    """False: other metrics are made of it."""

    @property
    def width(self) -> int:
        """Columns of a series: a histogram has one for each bucket, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


class Counters:
    """The table. Made before the workers are forked; passed to other processes by its descriptor.

    One thread of a process writes; any may read. What is counted before `join` goes to the row of the whole server.

    Args:
        metrics: everything that is counted: the same, in all processes.
        fd: of the memory that another process has made, which is taken over. None: new memory.
    """

    def __init__(self, metrics: Sequence[Metric], fd: int | None = None) -> None:
        self.metrics = metrics
        self.fd = anonymous_memory("iei-counters", _BYTES) if fd is None else fd
        weakref.finalize(self, os.close, self.fd)
        self._rows = Rows(self.fd, ROWS)
        self._metrics = {metric.name: metric for metric in metrics}
        shared = mmap.mmap(self.fd, _BYTES)
        self._header = memoryview(shared)[: 8 * _HEADER].cast("q")
        """Bytes of names, rows that have ever been used, and the process of each row."""
        self._names = memoryview(shared)[_NAMES_AT : _NAMES_AT + NAMES_BYTES]
        """A line of JSON for each series, in the order of their columns."""
        self._cells = memoryview(shared)[_CELLS_AT:].cast("d")
        self._columns: dict[str, dict[Labels, int]] = {metric.name: {} for metric in metrics}
        self._known_bytes = 0
        self._next_column = _SPARE
        self._base = 0

    def join(self, process: str) -> None:
        """Gives this process a row, so that it may count. Once in each; later calls do nothing.

        Args:
            process: what kind of process it is.
        """
        if self._rows.own is not None:
            return
        with self._rows.exclusive():
            row = self._rows.claim(range(1, ROWS))
            if row is None:
                raise RuntimeError(f"more than {ROWS - 1} processes count together")
            self._base = row * COLUMNS
            self._learn()
            for metric in self.metrics:
                if metric.kind == "gauge":
                    for column in self._columns[metric.name].values():
                        self._cells[self._base + column] = 0.0
            self._header[_USED] = max(self._header[_USED], row + 1)
            self._header[_PIDS + row] = os.getpid()
        self.set(PROCESSES, (process,), 1)

    def add(self, metric: Metric, labels: Labels = (), amount: float = 1.0) -> None:
        """Adds to a counter, or to this process' part of a gauge."""
        self._cells[self._base + self._column(metric, labels)] += amount

    def set(self, metric: Metric, labels: Labels, value: float) -> None:
        """Sets this process' part of a gauge."""
        self._cells[self._base + self._column(metric, labels)] = value

    def observe(self, metric: Metric, labels: Labels, value: float, count: int = 1) -> None:
        """Counts `count` observations of the same value in a histogram."""
        first = self._base + self._column(metric, labels)
        self._cells[first + bisect_left(metric.buckets, value)] += count
        self._cells[first + len(metric.buckets) + 1] += value * count

    def set_for_all(self, metric: Metric, labels: Labels, value: float) -> None:
        """Sets a gauge of the server as a whole. To be called inside `exclusive`."""
        self._cells[self._column(metric, labels)] = value

    def get_for_all(self, metric: Metric, labels: Labels = ()) -> float:
        """What `set_for_all` has set; 0 before. To be called inside `exclusive`."""
        return self._cells[self._column(metric, labels)]

    def by_process(self, metric: Metric, labels: Labels = ()) -> npt.NDArray[np.float64]:
        """A view of float64[processes]: what each has set a gauge to, and what those that have ended had set it to."""
        return self._table()[1 : self._header[_USED], self._column(metric, labels)]

    def exclusive(self) -> AbstractContextManager[None]:
        """Only one process is inside."""
        return self._rows.exclusive()

    def read(self) -> Reading:
        """All numbers as they are now."""
        with self._rows.exclusive():
            self._learn()
            used = max(1, self._header[_USED])
            alive = [0, *(row for row in range(1, used) if self._rows.is_alive(row))]
        table = self._table()[:used, : self._next_column].copy()
        pids = [self._header[_PIDS + row] for row in alive[1:]]
        return Reading(self._columns, table.sum(0), table[alive].sum(0), dict(zip(pids, table[alive[1:]], strict=True)))

    def _table(self) -> npt.NDArray[np.float64]:
        """A view of all numbers, float64[ROWS, COLUMNS]."""
        import numpy as np  # late: a process that only counts does without

        return np.asarray(self._cells).reshape(ROWS, COLUMNS)

    def _column(self, metric: Metric, labels: Labels) -> int:
        try:
            return self._columns[metric.name][labels]
        except KeyError:
            return self._new_column(metric, labels)

    def _new_column(self, metric: Metric, labels: Labels) -> int:
        """The column of a series that this process has not used yet: another process may have named it."""
        with self._rows.exclusive():
            self._learn()
            if labels not in self._columns[metric.name]:
                line = json.dumps([metric.name, *labels]).encode() + b"\n"
                end = self._known_bytes + len(line)
                if end > NAMES_BYTES or self._next_column + metric.width > COLUMNS:
                    log.error("there is no room to count %s of %s", metric.name, labels)
                    return self._columns[metric.name].setdefault(labels, 0)
                self._names[self._known_bytes : end] = line
                self._header[_NAMED] = end  # last: whoever is killed before it has named nothing
                self._learn()
        return self._columns[metric.name][labels]

    def _learn(self) -> None:
        """Reads the names that have been added since the last time. Inside `exclusive`."""
        end = self._header[_NAMED]
        for line in bytes(self._names[self._known_bytes : end]).splitlines():
            name, *labels = json.loads(line)
            self._columns[name][tuple(labels)] = self._next_column
            self._next_column += self._metrics[name].width
        self._known_bytes = end


class Reading:
    """The numbers of all processes at one moment."""

    def __init__(
        self,
        columns: Mapping[str, Mapping[Labels, int]],
        counted: npt.NDArray[np.float64],
        living: npt.NDArray[np.float64],
        processes: Mapping[int, npt.NDArray[np.float64]],
    ) -> None:
        """Takes the columns of each metric's series, the sums over all rows and over the living ones, and those."""
        self._columns = columns
        self._counted = counted
        self._living = living
        self._processes = processes

    def values(self, metric: Metric) -> dict[Labels, float]:
        """Labels → the number, of a counter or a gauge."""
        numbers = self._living if metric.kind == "gauge" else self._counted
        return {labels: float(numbers[column]) for labels, column in self._series(metric) if column}

    def histograms(self, metric: Metric) -> dict[Labels, npt.NDArray[np.float64]]:
        """Labels → float64[buckets + 2]: how many were in each bucket and above all, and their sum."""
        return {
            labels: self._counted[column : column + metric.width] for labels, column in self._series(metric) if column
        }

    def processes(self) -> dict[int, str]:
        """Process id → what kind of process it is, of those that are alive."""
        kinds = self._series(PROCESSES)
        return {pid: kind for pid, row in self._processes.items() for (kind,), column in kinds if row[column]}

    def _series(self, metric: Metric) -> list[tuple[Labels, int]]:
        # Another thread may name a series meanwhile; those that are newer than the numbers are left out.
        end = len(self._counted)
        return [(labels, column) for labels, column in list(self._columns[metric.name].items()) if column < end]


PROCESSES = Metric("iei_processes", "gauge", "Processes that are alive.", ("process",))

_NAMED, _USED, _PIDS = 0, 1, 2
"""Places in the header."""
_HEADER = _PIDS + ROWS
_NAMES_AT = 8 * (_HEADER + _HEADER % 2)
_CELLS_AT = _NAMES_AT + NAMES_BYTES
_BYTES = _CELLS_AT + 8 * ROWS * COLUMNS
_SPARE = 64
"""The first columns are for what there is no room for, and are never read."""
