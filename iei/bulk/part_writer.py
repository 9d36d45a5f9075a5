"""Rows → a part, group by group."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iei.bulk.ids import Ids
from iei.bulk.manifest import Finished, part_name
from iei.bulk.parts import ROW_GROUP, parquet
from iei.bulk.row import Row
from iei.bulk.schema import table_of


class PartWriter:
    """Writes one part. Its methods block, and are for one thread at a time.

    Args:
        folder: of the parts.
        schema: of all parts.
        part: its number.
        earlier: the part as it is there, if its errors were tried again: new rows take the places of those that
            have errors, and the others stay.
    """

    def __init__(self, folder: Path, schema: pa.Schema, part: int, earlier: Finished | None = None) -> None:
        self.part = part
        self.rows = self.errors = self.duplicates = 0
        self._target = folder / part_name(part)
        self._schema = schema
        self._earlier = earlier
        self._waiting: list[Row] = []
        self._open = ExitStack()
        self._writer: pq.ParquetWriter | None = None

    @property
    def seen(self) -> int:
        """Rows that were added, those included that have none in the part."""
        return self.rows + self.duplicates

    def add(self, row: Row) -> bool:
        """Takes the next row. Returns whether `write` should be called now."""
        if row.is_duplicate:
            self.duplicates += 1
            return False
        self.rows += 1
        self.errors += row.error is not None
        self._waiting.append(row)
        return len(self._waiting) >= ROW_GROUP and not self._earlier

    def write(self) -> None:
        """Writes a group of those that wait."""
        rows, self._waiting = self._waiting, []
        self._write(table_of(rows, self._schema))

    def finish(self, ids: Ids) -> Finished:
        """Writes what is left. The part is on disk when this returns. `ids`: of its items."""
        rows, errors, duplicates = self.rows, self.errors, self.duplicates
        if self._earlier:
            rows, duplicates = self._earlier.rows, self._earlier.duplicates
            for table in self._mended():
                self._write(table)
        elif self._waiting or self._writer is None:
            self.write()
        self._open.close()
        size = self._target.stat().st_size
        return Finished(self.part, ids.count, rows, errors, duplicates, ids.first, ids.last, ids.digest, size)

    def abandon(self) -> None:
        """Removes what has been written so far, if it is not finished."""
        with suppress(OSError):  # its end can't be written where the disk is full, and need not be
            self._open.__exit__(Abandoned, Abandoned(), None)

    def _write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = self._open.enter_context(parquet(self._target, self._schema))
        self._writer.write_table(table, row_group_size=ROW_GROUP)

    def _mended(self) -> Iterator[pa.Table]:
        """The groups of the part that is there, with new rows in the places of errors."""
        coming = deque(self._waiting)
        with pq.ParquetFile(self._target) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                failed = pc.is_valid(table["error"])
                places = pc.indices_nonzero(failed).to_pylist()
                if not places:
                    yield table
                    continue
                mended = table_of([coming.popleft() for _ in places], self._schema)
                order = list(range(len(table)))
                for number, place in enumerate(places):
                    order[place] = len(table) + number
                yield pa.concat_tables([table.cast(self._schema), mended]).take(order)


class Abandoned(Exception):
    """A part is not finished: the job ends before."""
