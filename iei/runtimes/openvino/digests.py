"""Digests of files, remembered: a file that has not changed since is not read again to compare it.

As in git's index, a file is the same while its path, size, times and inode are. Times are as coarse as the clock of a
file system: a file that was written just before it was read may have been written once more just after, at the same
time. So only files that were older when they were read are remembered.

Some file systems have no times of changes of their own: mounted images have those that they were made with, and whoever
wants to make the same image again gives all files one time. Such files are not remembered.

A record only saves time. One that is damaged, or that somebody else may have written, is not used.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from iei.runtimes.openvino.converted import sha256

log = logging.getLogger("iei.engine")

COARSEST_CLOCK_NS = 2 * 10**9
"""FAT's; other file systems count in smaller steps."""
MOST_FILES = 1000
"""In a record: those that were read last. Whether others are still there is not asked, as that may fail or hang."""
MOST_BYTES = 2**24
"""Of a record: some hundred bytes for each file."""


class State(NamedTuple):
    """What changes when a file does. Who writes a file may set its `mtime_ns`, but not its `ctime_ns`."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @property
    def has_own_times(self) -> bool:
        """Whether they say when the file was changed here."""
        return self.ctime_ns != self.mtime_ns or self.ctime_ns % 10**9 != 0


class Entry(NamedTuple):
    """What is remembered of a file: its state before it was read, and its SHA-256 in hex."""

    state: State
    digest: str


_ADAPTER = TypeAdapter(dict[str, Entry])
"""A record: paths without links, and what is known of the files there."""


class Digests:
    """SHA-256 of files, taken from a record where that has them.

    Args:
        record: a file, which need not be there, and may be read-only; None: there is no place for one.
    """

    def __init__(self, record: Path | None) -> None:
        self._record = record
        self._known = _read(record) if record else {}
        self._has_news = False

    def of(self, file: Path) -> str:
        """The digest of a file's bytes, in hex. Raises OSError if they can't be read."""
        path, state = str(file.resolve()), _state(file)
        known = self._known.get(path)
        if known and known.state == state:
            return known.digest
        started_ns = time.time_ns()
        digest = sha256(file)
        is_old = max(state.mtime_ns, state.ctime_ns) + COARSEST_CLOCK_NS < started_ns
        if is_old and state.has_own_times and _state(file) == state:
            self._known.pop(path, None)
            self._known[path] = Entry(state, digest)  # the last
            self._has_news = True
        return digest

    def save(self) -> None:
        """Writes the record for later starts if there is something new."""
        if not self._has_news or self._record is None:
            return
        content = _ADAPTER.dump_json(dict(list(self._known.items())[-MOST_FILES:]))
        try:
            _replace(self._record, _checksum(content) + b"\n" + content)
        except OSError as error:
            log.debug("later starts will read the model's files again: %s", error)


def _state(file: Path) -> State:
    found = file.stat()
    return State(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _read(record: Path) -> dict[str, Entry]:
    """What is in a record; nothing if it is damaged, or could have been written by others than this user and root."""
    try:
        with open(os.open(record, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as opened:  # noqa: PTH123 - flags
            found = os.fstat(opened.fileno())
            is_ours = stat.S_ISREG(found.st_mode) and found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
            checksum, _, content = opened.read(MOST_BYTES if is_ours else 0).partition(b"\n")
        return _ADAPTER.validate_json(content) if checksum == _checksum(content) else {}
    except (OSError, ValidationError):
        return {}


def _checksum(content: bytes) -> bytes:
    """Tells a damaged record from a whole one: a digest with one wrong letter would be a digest."""
    return hashlib.sha256(content).hexdigest().encode()


def _replace(file: Path, content: bytes) -> None:
    """Writes a file, so that others see the old one or the new one. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with open(descriptor, "wb") as opened:  # noqa: PTH123 - a file descriptor, not a path
            os.fchmod(descriptor, 0o644)
            opened.write(content)
        Path(draft).replace(file)
    except BaseException:
        Path(draft).unlink()
        raise
