"""A folder of parts, as one run sees it: locked, of this job, without what killed runs have left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from iei.bulk.fingerprint import Fingerprint
from iei.bulk.locks import locked
from iei.bulk.manifest import FOLDER, Finished, Manifest, Shard, part_name
from iei.bulk.parts import temporary_of

_LEFT = re.compile(re.escape(temporary_of(Path(part_name(0))).name).replace("00000", r"(\d{5,})"))
"""A part that was being written."""


@dataclass(frozen=True, slots=True)
class PartsFolder:
    """See `opened`."""

    path: Path
    manifest: Manifest

    @property
    def finished(self) -> list[Finished]:
        """All parts that are there, of all shards, in order."""
        return [part for _, part in sorted(self.manifest.finished.items())]

    def errors(self, part: Finished) -> Iterator[tuple[str, str]]:
        """Yields the id and the error of each row of a part that has one."""
        if part.errors:
            rows = pq.read_table(self.path / part.name, columns=["id", "error"]).to_pylist()
            yield from ((row["id"], row["error"]) for row in rows if row["error"] is not None)

    def ids_of_errors(self, part: Finished) -> frozenset[str]:
        """The ids of these rows."""
        return frozenset(item_id for item_id, _ in self.errors(part))

    def digests(self) -> Iterator[str]:
        """Yields what all rows have as `sha256`."""
        for part in self.finished:
            with pq.ParquetFile(self.path / part.name) as file:
                for batch in file.iter_batches(columns=["sha256"]):
                    yield from filter(None, batch.column(0).to_pylist())


@contextmanager
def opened(path: Path, job: Fingerprint, shard: Shard) -> Iterator[PartsFolder]:
    """The folder of parts at `path`, made if there is none, and locked while the block runs.

    Args:
        path: of the folder.
        job: what its parts have in common.
        shard: which parts are made here.

    Raises:
        StartupError: another run works there, or its parts are of another job.
        OSError: it can't be read or written.
    """
    hidden = path / FOLDER
    hidden.mkdir(parents=True, exist_ok=True)
    with locked(hidden, shard):
        manifest = Manifest(path, job, shard)
        try:
            for file in path.iterdir():
                if (match := _LEFT.fullmatch(file.name)) and int(match[1]) in shard:
                    file.unlink()
            yield PartsFolder(path, manifest)
        finally:
            manifest.close()
