"""What is measured, as data: which axes vary together, in which order, and what is missing yet."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

from benchmarks.serving.cells import SIZES, USUAL, Cell
from benchmarks.serving.contenders import ALL_MODELS, LONGER, Contender
from benchmarks.serving.results import Key, Row


@dataclass(frozen=True)
class Sweep:
    """Cells of a model: every combination of these."""

    models: tuple[str, ...]
    connections: tuple[int, ...] = (0,)
    sizes: tuple[str, ...] = (USUAL,)
    pictures: tuple[int, ...] = (1,)
    shares: tuple[float, ...] = (0.0,)

    def cells(self, model: str) -> list[Cell]:
        """Those of one model."""
        axes = product(self.connections, self.sizes, self.pictures, self.shares)
        return [Cell(model, *axis) for axis in axes] if model in self.models else []


@dataclass(frozen=True)
class Matrix:
    """Everything that is measured, and for how long."""

    models: tuple[str, ...]
    trial: tuple[int, ...]
    """Connections with which each set-up of a contender is measured. The best at the last goes on alone."""
    sweeps: tuple[Sweep, ...]
    rounds: int
    seconds: float
    warmup_s: float

    def seconds_of(self, model: str) -> float:
        """For each figure of a model: longer where a batch takes a second, as the window has few of them."""
        return self.seconds * LONGER.get(model, 1)

    def trials(self, model: str) -> list[Cell]:
        """What each set-up is measured with."""
        return [Cell(model, connections) for connections in self.trial]

    def rest(self, model: str) -> list[Cell]:
        """What the best set-up is measured with besides, once each. Open loops come last."""
        trials = self.trials(model)
        cells = dict.fromkeys(cell for sweep in self.sweeps for cell in sweep.cells(model) if cell not in trials)
        return sorted(cells, key=lambda cell: cell.share > 0)


FULL = Matrix(
    models=ALL_MODELS,
    trial=(1, 16),
    sweeps=(
        Sweep(("ViT-Tiny", "no size"), connections=(1, 4, 16, 64, 256)),
        Sweep(("ViT-B", "Swin-T", "CLIP-B/32"), connections=(1, 4, 16, 64)),
        Sweep(("ViT-Tiny",), connections=(16,), sizes=tuple(SIZES)),
        Sweep(("ViT-Tiny",), connections=(1, 4), pictures=(32,)),
        Sweep(("ViT-Tiny",), shares=(0.5, 0.7, 0.9)),
    ),
    rounds=3,
    seconds=10,
    warmup_s=3,
)
QUICK = Matrix(
    models=("ViT-Tiny", "ViT-B", "Swin-T", "no size"),
    trial=(1, 16),
    sweeps=(Sweep(("ViT-Tiny",), connections=(1, 4, 16, 64, 256)),),
    rounds=1,
    seconds=4,
    warmup_s=2,
)


@dataclass(frozen=True)
class Job:
    """What one start of a server is for."""

    round: int
    contender: Contender
    setup: str
    cells: tuple[Cell, ...]

    def places(self) -> list[Key]:
        """Where the results of the cells belong."""
        return [key(self.round, self.contender.name, self.setup, cell) for cell in self.cells]


def key(round_number: int, contender: str, setup: str, cell: Cell) -> Key:
    """The place of one result."""
    return (round_number, contender, setup, cell)


def jobs(matrix: Matrix, contenders: Sequence[Contender], done: Mapping[Key, Row]) -> Iterator[Job]:
    """All of the matrix in its order: in each round each model, and of a model each contender, one after the other.

    What a contender's best set-up is known from `done`, which grows meanwhile: take one job after the other.
    """
    for number, model, contender in product(range(1, matrix.rounds + 1), matrix.models, contenders):
        if model not in contender.models:
            continue
        setups = [setup.name for setup in contender.setups]
        trials, rest = tuple(matrix.trials(model)), () if contender.bare else tuple(matrix.rest(model))
        if len(setups) == 1:
            yield Job(number, contender, setups[0], trials + rest)
            continue
        for setup in setups:
            yield Job(number, contender, setup, trials)
        if rest:
            yield Job(number, contender, best_setup(contender.name, setups, trials[-1], done), rest)


def best_setup(contender: str, setups: Sequence[str], cell: Cell, done: Mapping[Key, Row]) -> str:
    """The set-up with the highest median over the rounds; the first, where none has a figure."""

    def rate(setup: str) -> float:
        rates = [row.rate for row in done.values() if (row.contender, row.setup, row.cell) == (contender, setup, cell)]
        known = [each for each in rates if each is not None]
        return median(known) if known else 0.0

    return max(setups, key=rate)


def missing(job: Job, done: Mapping[Key, Row], tried: Collection[Key]) -> list[Cell]:
    """Cells of a job without a figure, and not tried in this call."""
    return [
        cell
        for cell, place in zip(job.cells, job.places(), strict=True)
        if place not in tried and (place not in done or done[place].error)
    ]


def seconds_left(matrix: Matrix, contenders: Sequence[Contender], done: Mapping[Key, Row]) -> float:
    """About how long what is missing takes, starts of servers included."""
    start_s = 15.0
    left = 0.0
    for job in jobs(matrix, contenders, done):
        if cells := missing(job, done, ()):
            left += start_s + len(cells) * (matrix.seconds_of(cells[0].model) + matrix.warmup_s + 1)
    return left
