"""Tables of Arrow: in memory, Parquet files, and Arrow's own (`.arrow`, `.feather`, also in the form of streams)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from iei.bulk.sources.files import Files
from iei.bulk.sources.reading import reading
from iei.bulk.sources.tables import Kind, Row

_ROWS = 16
"""Rows that are read at a time. Pictures of 10 MB are common, and 64 at a time are in work anyway."""
_BUFFER_BYTES = 2**20
"""Read ahead in each column. Without it, a row group's whole column is read at once: gigabytes of pictures."""


@dataclass(frozen=True)
class Parquet:
    """A Parquet file."""

    files: Files
    path: str

    def columns(self) -> Mapping[str, Kind]:
        """See `Table`."""
        with self._open() as file:
            return _kinds(file.schema_arrow)

    def rows(self, columns: Sequence[str]) -> Generator[Row]:
        """See `Table`."""
        with self._open() as file:
            yield from _values(file.iter_batches(_ROWS, columns=list(columns), use_threads=False), columns)

    def count(self) -> int | None:
        """See `Table`."""
        return self._count

    @cached_property
    def _count(self) -> int:
        with self._open() as file:
            return int(file.metadata.num_rows)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with reading(self.path, "a Parquet file", pa.ArrowException), self.files.open(self.path) as stream:
            yield pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False)


@dataclass(frozen=True)
class ArrowFile:
    """A file of Arrow's format for files, or for streams."""

    files: Files
    path: str

    def columns(self) -> Mapping[str, Kind]:
        """See `Table`."""
        with self._open() as (schema, _):
            return _kinds(schema)

    def rows(self, columns: Sequence[str]) -> Generator[Row]:
        """See `Table`."""
        with self._open() as (_, batches):
            yield from _values((batch.select(list(columns)) for batch in batches), columns)

    def count(self) -> int | None:
        """See `Table`. It is known only by reading the file."""
        return None

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Iterable[Any]]]:
        import pyarrow as pa

        with reading(self.path, "an Arrow file", pa.ArrowException), self.files.open(self.path) as stream:
            is_file = stream.read(len(_MAGIC)) == _MAGIC
            stream.seek(0)
            if is_file:
                file = pa.ipc.open_file(stream)
                yield file.schema, (file.get_batch(number) for number in range(file.num_record_batches))
            else:
                batches = pa.ipc.open_stream(stream)
                yield batches.schema, batches


_MAGIC = b"ARROW1"


@dataclass(frozen=True)
class InMemory:
    """A table that a program has read itself."""

    table: Any
    """A `pyarrow.Table`."""

    path = "the table"

    def columns(self) -> Mapping[str, Kind]:
        """See `Table`."""
        return _kinds(self.table.schema)

    def rows(self, columns: Sequence[str]) -> Generator[Row]:
        """See `Table`."""
        yield from _values(self.table.select(list(columns)).to_batches(), columns)

    def count(self) -> int | None:
        """See `Table`."""
        return int(self.table.num_rows)


def _values(batches: Iterable[Any], columns: Sequence[str]) -> Generator[Row]:
    for batch in batches:
        # One value at a time is made an object of Python: a batch of an Arrow file may have thousands of pictures.
        arrays = [batch.column(name) for name in columns]
        for row in range(batch.num_rows):
            yield tuple(array[row].as_py() for array in arrays)


def _kinds(schema: Any) -> Mapping[str, Kind]:
    return {field.name: _kind(field.type) for field in schema}


def _kind(kind: Any) -> Kind:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_struct(kind):
        names = {field.name for field in kind}
        return "picture" if {"bytes", "path"} <= names else "other"
    tests: Mapping[Kind, Sequence[Any]] = {
        "bytes": (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary),
        "string": (types.is_string, types.is_large_string, types.is_string_view),
        "integer": (types.is_integer,),
    }
    return next((name for name, are in tests.items() if any(is_(kind) for is_ in are)), "other")
