"""The drawings of docs/benchmarks.md as SVG: one look for light and for dark pages, and for all eyes.

Backgrounds are transparent and letters are a grey of equal contrast (about 4.5) to white and to black, because a page's
scheme is not always what the system says to a picture. Hues are those of Okabe and Ito, darkened where they are too
light for white; a line's own end says what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.serving.cells import Cell
from benchmarks.serving.contenders import CONTENDERS
from benchmarks.serving.matrix import Matrix
from benchmarks.serving.medians import Figures, Medians

GREY = "#777777"
COLOURS = {
    "IEI": "#0b7ec2",
    "IEI bf16": "#0b7ec2",
    "IEI int8": "#0b7ec2",
    "bare loop": GREY,
    "IEI's parts": GREY,
    "AutoModel": "#d55e00",
    "LitServe": "#009e73",
    "mosec": "#c05f96",
    "infinity": "#a97c00",
}
MARKS = {"IEI bf16": ("--", "s"), "IEI int8": (":", "^"), "bare loop": ("-.", "d"), "IEI's parts": (":", "d")}
"""Line and marker of those that share a colour with another; of all others: a full line with dots."""
SHADES = (1.0, 0.62, 0.38, 0.22)
"""Opacity of the parts of a bar."""
PANEL_INCHES = (3.5, 2.9)


def draw(matrix: Matrix, medians: Medians, folder: Path) -> dict[Path, str]:
    """Draws all, and returns file → what it shows. Needs matplotlib (the group `plots`)."""
    most = matrix.trial[-1]
    drawn: dict[str, tuple[str, Callable[[], Any]]] = {
        "serving-throughput": (
            "Pictures per second over connections",
            lambda: _lines(medians, "pictures/s", lambda figures: figures.rate),
        ),
        "serving-latency": (
            "Median latency over connections",
            lambda: _lines(medians, "p50, ms", lambda figures: figures.p50_ms),
        ),
        "serving-memory": (
            f"Memory of all processes at {most} connections",
            lambda: _bars(matrix, medians, "MiB (PSS)", lambda figures: figures.pss_mib),
        ),
        "serving-cpu": (
            f"CPU time per picture by process at {most} connections",
            lambda: _bars(matrix, medians, "CPU-ms per picture", lambda figures: figures.cpu_ms),
        ),
    }
    files = {}
    with _look():
        for name, (title, make) in drawn.items():
            if figure := make():
                file = folder / f"{name}.svg"
                figure.savefig(file, metadata={"Date": None}, transparent=True)
                files[file] = title
    return files


@contextmanager
def _look() -> Iterator[None]:
    import matplotlib as mpl

    greys = ("axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "text.color", "xtick.color", "ytick.color")
    with mpl.rc_context(
        {
            **dict.fromkeys(greys, GREY),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "font.family": "sans-serif",
            "font.size": 10,
            "svg.fonttype": "none",  # letters stay letters: they can be searched, read aloud and selected
            "svg.hashsalt": "iei",  # the same file each time
        }
    ):
        yield


def _panels(count: int) -> tuple[Any, list[Any]]:
    """A figure with so many axes, two in a row."""
    from matplotlib.figure import Figure

    columns = min(2, count)
    rows = -(-count // columns)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * columns + 0.8, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def _lines(medians: Medians, unit: str, value: Callable[[Figures], float | None]) -> Any:
    """A panel for each model, a line for each contender. None: nothing to draw."""
    closed = sorted(
        (cell for cell in medians.cells if cell == Cell(cell.model, cell.connections) and cell.connections),
        key=lambda cell: cell.connections,
    )
    models = list(dict.fromkeys(row.cell.model for row in medians.rows))
    if not closed:
        return None
    figure, panels = _panels(len(models))
    for model, axes in zip(models, panels, strict=True):
        cells = [cell for cell in closed if cell.model == model]
        ends = []
        for contender in medians.contenders(cells):
            points = [
                (cell.connections, found)
                for cell in cells
                if (figures := medians.of(contender.name, cell)) and (found := value(figures)) is not None
            ]
            if not points or contender.bare:  # it has no connections
                continue
            line, mark = MARKS.get(contender.name, ("-", "o"))
            axes.plot(*zip(*points, strict=True), line, marker=mark, markersize=4, color=COLOURS[contender.name])
            ends.append((contender.name, points[-1]))
        axes.set(title=model, xscale="log", yscale="log", ylabel=unit)
        steps = sorted({cell.connections for cell in cells})
        axes.set_xticks(steps, [str(step) for step in steps])
        axes.minorticks_off()
        axes.set_xlabel("connections")
        _plain_ticks(axes)
        _label_ends(axes, ends)
    return figure


def _plain_ticks(axes: Any) -> None:
    """Numbers as people write them, 1, 2 and 5 times a power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)


def _label_ends(axes: Any, ends: Sequence[tuple[str, tuple[int, float]]]) -> None:
    """The name of each line at its right end, apart from its neighbours."""
    height = axes.get_position().height * axes.figure.get_figheight() * 72 * 0.8
    low, high = axes.transData.transform([(1, bound) for bound in axes.get_ylim()])[:, 1]
    points = {name: float(axes.transData.transform((1, value))[1]) for name, (_, value) in ends}
    places = spread(points, (high - low) * 11 / height)
    for name, end in ends:
        axes.annotate(
            name,
            end,
            xytext=(6, (places[name] - points[name]) / (high - low) * height),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=COLOURS[name],
            annotation_clip=False,
        )


def spread(places: dict[str, float], least: float) -> dict[str, float]:
    """Moves places apart, in their order, until neighbours are `least` apart; their mean stays."""
    ordered = sorted(places, key=lambda name: places[name])
    moved: list[float] = []
    for name in ordered:
        moved.append(max(places[name], moved[-1] + least) if moved else places[name])
    shift = sum(moved) / len(moved) - sum(places.values()) / len(places) if moved else 0.0
    return {name: place - shift for name, place in zip(ordered, moved, strict=True)}


def _bars(matrix: Matrix, medians: Medians, unit: str, parts: Callable[[Figures], dict[str, float]]) -> Any:
    """A panel for each model, a bar for each contender, made of what its kinds of processes take."""
    known = [
        (model, bars) for model in matrix.models if (bars := _parts(Cell(model, matrix.trial[-1]), medians, parts))
    ]
    if not known:
        return None
    figure, panels = _panels(len(known))
    for (model, bars), axes in zip(known, panels, strict=True):
        widest = max(sum(roles.values()) for roles in bars.values())
        for row, (name, roles) in enumerate(bars.items()):
            left = 0.0
            for shade, (role, size) in zip(SHADES, sorted(roles.items(), key=lambda part: -part[1]), strict=False):
                axes.barh(row, size, left=left, color=COLOURS[name], alpha=shade)
                if size > 0.22 * widest:
                    white = shade > 0.5
                    axes.text(
                        left + size / 2,
                        row,
                        role,
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="white" if white else GREY,
                    )
                left += size
            axes.text(
                left + 0.02 * widest, row, f"{left:.0f}" if left >= 10 else f"{left:.1f}", va="center", fontsize=9
            )
        axes.set_yticks(range(len(bars)), list(bars))
        axes.invert_yaxis()
        axes.set(title=model, xlabel=unit, xlim=(0, 1.15 * widest))
        axes.tick_params(left=False)
    return figure


def _parts(cell: Cell, medians: Medians, parts: Callable[[Figures], dict[str, float]]) -> dict[str, dict[str, float]]:
    """Contender → role → figure."""
    found = {each.name: medians.of(each.name, cell) for each in CONTENDERS}
    return {name: roles for name, figures in found.items() if figures and (roles := parts(figures))}
