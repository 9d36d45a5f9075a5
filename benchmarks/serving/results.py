"""What was measured, a line of JSON for each cell: a call that is ended loses one, and the next goes on from there."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving.cells import Cell

Key = tuple[int, str, str, Cell]
"""Round, contender, set-up, cell."""


@dataclass(frozen=True)
class Row:
    """One cell of one set-up in one round: a figure, or why there is none."""

    round: int
    contender: str
    setup: str
    cell: Cell
    rate: float | None = None
    """Pictures per second."""
    p50_ms: float | None = None
    p99_ms: float | None = None
    client_cpu: float | None = None
    """CPU seconds of the load client per second: its share of one core."""
    others: float | None = None
    """Cores that other programs used meanwhile."""
    cpu_ms: dict[str, float] = field(default_factory=dict)
    """Role → CPU-ms of its processes per picture."""
    pss_mib: dict[str, list[float]] = field(default_factory=dict)
    """Role → MiB of each of its processes, right after the load."""
    cosine: float | None = None
    """The least with transformers' vector, of several pictures."""
    ready_s: float | None = None
    """From the start of the server to its first vectors."""
    error: str = ""

    @property
    def key(self) -> Key:
        """Where it belongs."""
        return (self.round, self.contender, self.setup, self.cell)


class Results:
    """Rows in a file, the newest of each place.

    Args:
        file: is made when there is something to keep.
        models: whose rows are read; None: all.
    """

    def __init__(self, file: Path, models: Collection[str] | None = None) -> None:
        self._file = file
        self.rows: dict[Key, Row] = {}
        lines = file.read_text().splitlines() if file.exists() else []
        for line in lines:
            row = read(json.loads(line))
            if models is None or row.cell.model in models:
                self.rows[row.key] = row

    def add(self, rows: Iterable[Row]) -> None:
        """Keeps them, on the disk as well."""
        with self._file.open("a") as file:
            for row in rows:
                self.rows[row.key] = row
                file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def read(content: dict[str, Any]) -> Row:
    """A row from its JSON."""
    return Row(**{**content, "cell": Cell(**content["cell"])})
