"""Contents that a job has had already, for jobs without duplicates."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable


class Seen:
    """A set of digests, on disk: a hundred million of them take no memory.

    It is in a temporary file that has no name (SQLite's database ""), and is made anew from the parts by each run.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, digest: str) -> bool:
        """Adds a digest, in hex. Returns whether it is new."""
        done = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", [bytes.fromhex(digest)])
        return done.rowcount == 1

    def add_all(self, digests: Iterable[str]) -> None:
        """Adds many."""
        rows = ([bytes.fromhex(digest)] for digest in digests)
        self._database.executemany("INSERT OR IGNORE INTO seen VALUES (?)", rows)

    def close(self) -> None:
        """Frees the disk."""
        self._database.close()
