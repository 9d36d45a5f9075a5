"""Medians over the rounds, of the best of a contender's set-ups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks.serving.cells import Cell
from benchmarks.serving.contenders import CONTENDERS, Contender
from benchmarks.serving.results import Key, Row


@dataclass(frozen=True)
class Figures:
    """What a contender does with one load."""

    setup: str
    rounds: int
    rate: float
    p50_ms: float | None
    p99_ms: float | None
    cpu_ms: dict[str, float]
    """Role → CPU-ms per picture."""
    pss_mib: dict[str, float]
    """Role → MiB of all its processes together."""
    cosine: float | None
    ready_s: float | None


class Medians:
    """All figures, by contender and cell."""

    def __init__(self, rows: Mapping[Key, Row]) -> None:
        self.rows = [row for row in rows.values() if row.rate is not None]
        self.failed = [row for row in rows.values() if row.error]
        self.cells = {row.cell for row in self.rows}
        grouped: dict[tuple[str, Cell], dict[str, list[Row]]] = {}
        for row in self.rows:
            grouped.setdefault((row.contender, row.cell), {}).setdefault(row.setup, []).append(row)
        self._figures = {
            place: max((_figures(setup, rows) for setup, rows in setups.items()), key=lambda figures: figures.rate)
            for place, setups in grouped.items()
        }

    def of(self, contender: str, cell: Cell) -> Figures | None:
        """The figures of the set-up that is the fastest with this load, or None: it was not measured."""
        return self._figures.get((contender, cell))

    def contenders(self, cells: Iterable[Cell]) -> list[Contender]:
        """Those with a figure for one of the cells, in their usual order."""
        wanted = list(cells)
        return [each for each in CONTENDERS if any(self.of(each.name, cell) for cell in wanted)]

    def peers(self, cell: Cell) -> dict[str, Figures]:
        """Those that somebody would use instead, as far as they were measured."""
        found = {each.name: self.of(each.name, cell) for each in CONTENDERS if each.peer}
        return {name: figures for name, figures in found.items() if figures}

    def best_peer(self, cell: Cell) -> tuple[str, Figures] | None:
        """The fastest of them."""
        return max(self.peers(cell).items(), key=lambda pair: pair[1].rate, default=None)


def _figures(setup: str, rows: list[Row]) -> Figures:
    return Figures(
        setup,
        len(rows),
        middle(row.rate for row in rows) or 0.0,
        middle(row.p50_ms for row in rows),
        middle(row.p99_ms for row in rows),
        _by_role(row.cpu_ms for row in rows),
        _by_role({role: sum(sizes) for role, sizes in row.pss_mib.items()} for row in rows),
        min((row.cosine for row in rows if row.cosine is not None), default=None),
        middle(row.ready_s for row in rows),
    )


def middle(values: Iterable[float | None]) -> float | None:
    """The median of those that are known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _by_role(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    each = list(several)
    roles = dict.fromkeys(role for one in each for role in one)
    return {role: median(one.get(role, 0.0) for one in each) for role in roles}
