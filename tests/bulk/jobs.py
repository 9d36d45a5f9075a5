"""Jobs with vectors that are known, for tests of everything around the computing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from iei.bulk.embedder import Embedder
from iei.bulk.items import Encoded, Item, Source
from iei.bulk.job import Job, Rules
from iei.bulk.options import BulkOptions
from iei.bulk.progress import progress_for
from iei.errors import InvalidInput
from iei.models.spec import Modality
from iei.requests import Embedding, PictureSize
from iei.settings import Settings

DIMENSION = 8


class Known:
    """A computer whose vectors are made of the first bytes of the input. Inputs that begin with `bad` are refused."""

    dimension = DIMENSION
    modalities: tuple[Modality, ...] = ("image",)
    warnings = ()
    in_work = 16

    def __init__(self, *, bad: bytes | None = b"bad", pause_s: float = 0.0, **fingerprint: Any) -> None:
        self.fingerprint: Mapping[str, Any] = {"model": "known", "versions": {"torch": "2"}, **fingerprint}
        self.busy: Mapping[str, float] = {}
        self.computed: list[bytes] = []
        self._bad = bad
        self._pause_s = pause_s

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def embed(self, data: bytes | str) -> Embedding:
        assert isinstance(data, bytes)
        await asyncio.sleep(self._pause_s)
        self.computed.append(data)
        if self._bad and data.startswith(self._bad):
            raise InvalidInput("is bad: very much so")
        return Embedding({"default": vector_of(data)}, 1, PictureSize(3, 2))


def vector_of(data: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(data.ljust(DIMENSION, b"\0")[:DIMENSION], np.uint8).astype(np.float32)


class Listed:
    """A source of contents; ids are their places, unless they are given."""

    skipped = 0

    def __init__(self, contents: Sequence[bytes], ids: Sequence[str] = (), kept: Sequence[Any] = ()) -> None:
        self._contents, self._ids, self._kept = contents, ids, kept

    def __iter__(self) -> Iterator[Item]:
        for place, content in enumerate(self._contents):
            kept = {"label": self._kept[place]} if self._kept else {}
            yield Item(self._ids[place] if self._ids else str(place), Encoded(content), kept)

    @property
    def total(self) -> int:
        return len(self._contents)


def numbers(count: int) -> list[bytes]:
    return [f"{number:08}".encode() for number in range(count)]


def job(source: Source, computer: Known | None = None, options: BulkOptions | None = None, **rules: Any) -> Job:
    computer = computer or Known()
    embedder = Embedder(Settings(), options or BulkOptions(), computer)
    rules = {"part_size": 10, **rules}
    return Job(embedder, source, Rules(**rules), progress_for("none", lambda: {}, None, out=sys.stderr))


def run(folder: Path, source: Source, computer: Known | None = None, **options: Any) -> Job:
    """Makes the parts."""
    made = job(source, computer, **options)
    asyncio.run(made.into_parts(folder))
    return made


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """All rows of all parts, in order."""
    files = sorted(folder.glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())
