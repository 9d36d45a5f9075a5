"""Tables of text: `.csv` and `.tsv`, with a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from iei.bulk.sources.files import Files
from iei.bulk.sources.reading import reading
from iei.bulk.sources.tables import Kind, Row

_MAX_FIELD = 2**28
"""Characters of one value. Python's own limit is 128 Ki, less than a picture as a data URI has."""


@dataclass(frozen=True)
class Delimited:
    """A file of comma- or tab-separated values (RFC 4180, UTF-8). Values that are empty or not there are null."""

    files: Files
    path: str

    def columns(self) -> Mapping[str, Kind]:
        """See `Table`."""
        with self._open() as rows:
            return dict.fromkeys(next(rows, []), "string")

    def rows(self, columns: Sequence[str]) -> Generator[Row]:
        """See `Table`."""
        with self._open() as rows:
            header: list[str] = next(rows, [])
            places = [header.index(name) for name in columns]
            for row in rows:
                if row:  # an empty line
                    yield tuple((row[place] or None) if place < len(row) else None for place in places)

    def count(self) -> int | None:
        """See `Table`. It is known only by reading the file."""
        return None

    @contextmanager
    def _open(self) -> Iterator[Any]:
        csv.field_size_limit(_MAX_FIELD)
        tabs = self.path.lower().endswith(".tsv")
        with (
            reading(self.path, "a CSV file", csv.Error, UnicodeDecodeError),
            self.files.open(self.path) as stream,
            io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text,
        ):
            yield csv.reader(text, "excel-tab" if tabs else "excel")
