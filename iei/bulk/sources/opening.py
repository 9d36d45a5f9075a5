"""The inputs of a command line → one source."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from iei.bulk.items import Item, Source
from iei.bulk.sources.arrow import ArrowFile, Parquet
from iei.bulk.sources.braces import expand
from iei.bulk.sources.delimited import Delimited
from iei.bulk.sources.files import Files, files_of
from iei.bulk.sources.folders import Folder, Pattern, SingleFile
from iei.bulk.sources.lines import Lines, standard_input
from iei.bulk.sources.pictures import SUFFIXES, at_address
from iei.bulk.sources.reading import reading
from iei.bulk.sources.tables import Rows, Table
from iei.bulk.sources.tars import Shard
from iei.bulk.sources.walk import MAGIC, glob
from iei.errors import StartupError
from iei.models.spec import Modality


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the job says about all its inputs."""

    modality: Modality | None
    keep: Sequence[str]
    id_column: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """One file or folder of the input."""

    files: Files
    path: str
    column: str | None = None
    label: str = ""
    """What its ids begin with, where they are not ids of the input's own."""


def open_source(
    inputs: Sequence[str], *, modality: Modality | None, keep: Sequence[str] = (), id_column: str | None = None
) -> Source:
    """Everything that `inputs` name, in their order, as one source.

    Args:
        inputs: folders, patterns, files, `-` for stdin, `shard-{000..127}.tar`, `x.parquet[:column]`,
            `urls.csv:column`, http and https addresses of pictures; each may be a URL of fsspec.
        modality: what strings are. None: decided by what they look like.
        keep: columns that the output keeps.
        id_column: the column that ids are from.

    Raises:
        StartupError: an input does not exist, has no pictures, or lacks a column. All are looked at before this
            returns, so that no model is loaded for nothing.
    """
    wanted = Wanted(modality, keep, id_column)
    with reading("the input"):
        sources = list(_sources(inputs, wanted))
    for source in sources:
        if not isinstance(source, Lines):
            next(iter(source), None)
    return sources[0] if len(sources) == 1 else Several(sources)


class Several:
    """Sources one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def __iter__(self) -> Iterator[Item]:
        """See `Source`."""
        for source in self._sources:
            yield from source

    @property
    def total(self) -> int | None:
        """See `Source`."""
        totals = [source.total for source in self._sources]
        return None if None in totals else sum(total for total in totals if total is not None)

    @property
    def skipped(self) -> int:
        """See `Source`."""
        return sum(source.skipped for source in self._sources)
