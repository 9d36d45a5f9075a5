"""The manifest of a folder of parts: what they all have in common, and a line for each that is finished.

It lies in the folder `.iei`, which readers of Parquet pass over. Every shard writes a manifest of its own, and all of
them count. A line is written when its part is on disk; one that was cut short by a crash counts as not written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from iei.bulk.fingerprint import Fingerprint, differences
from iei.errors import StartupError

FOLDER = ".iei"


@dataclass(frozen=True, slots=True)
class Shard:
    """Which parts this run makes: those whose number leaves `index` when it is divided by `count`."""

    index: int = 0
    count: int = 1

    def __contains__(self, part: int) -> bool:
        return part % self.count == self.index

    def items(self, total: int, size: int) -> int:
        """How many of `total` items are in its parts of `size` items."""
        return sum(min(size, total - start) for start in range(self.index * size, total, self.count * size))

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


WHOLE = Shard()
"""The only shard of a job that is not divided."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A part that is on disk."""

    part: int
    items: int
    """Of the input."""
    rows: int
    errors: int
    """Rows without an embedding."""
    duplicates: int
    """Items that have no row, because their content has one in this job."""
    first: str
    """Id of the first item."""
    last: str
    ids: str
    """SHA-256 over the ids of all items."""
    bytes: int
    """Of the file."""

    @property
    def name(self) -> str:
        """Of the file."""
        return part_name(self.part)


class OtherJob(StartupError):
    """The parts in a folder were made of other items, or in another way, than those that are to be made now."""


def part_name(part: int) -> str:
    """The file of a part."""
    return f"part-{part:05}.parquet"


class Manifest:
    """The manifests in a folder of parts, of which one is written.

    Args:
        folder: of the parts.
        job: what all parts have in common.
        shard: whose manifest is written.

    Raises:
        OtherJob: the message names what differs.
        StartupError: a manifest is damaged.
        OSError: the folder can't be read or written.
    """

    def __init__(self, folder: Path, job: Fingerprint, shard: Shard) -> None:
        self.finished: dict[int, Finished] = {}
        """Parts of all shards whose files are there as they were written."""
        files = sorted((folder / FOLDER).glob("manifest-*.jsonl"))
        for file in files:
            first, *lines = _lines(file) or [dict(job)]
            _check_same(job, first, folder)
            for line in lines:
                part = Finished(**line)
                self.finished[part.part] = part
        self.finished = {part: line for part, line in self.finished.items() if _size(folder / line.name) == line.bytes}
        own = folder / FOLDER / f"manifest-{shard}.jsonl"
        self._fd = os.open(own, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        os.ftruncate(self._fd, sum(len(line) + 1 for line in _whole_lines(own)))
        if not os.fstat(self._fd).st_size:
            self._write(job)

    def add(self, part: Finished) -> None:
        """Notes that a part is on disk. It is noted for good when this returns."""
        self._write(asdict(part))
        self.finished[part.part] = part

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)

    def _write(self, line: Mapping[str, Any]) -> None:
        data = orjson.dumps(line) + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]
        os.fsync(self._fd)


def _whole_lines(file: Path) -> list[bytes]:
    """Without one that has no end."""
    return file.read_bytes().split(b"\n")[:-1]


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        return [orjson.loads(line) for line in _whole_lines(file)]
    except orjson.JSONDecodeError as error:
        raise StartupError(f"{file} is damaged ({error}): write to another folder.") from None


def _check_same(job: Fingerprint, found: Fingerprint, folder: Path) -> None:
    different = [f"{name} ({theirs!r} there, {ours!r} now)" for name, ours, theirs in differences(job, found)]
    if different:
        raise OtherJob(
            f"the parts in {folder} are of another job, and would not fit together with new ones. What differs: "
            f"{'; '.join(different)}. Write to another folder, or use what was used there."
        )


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None
