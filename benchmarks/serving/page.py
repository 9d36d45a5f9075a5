"""The tables of docs/benchmarks.md, and what the plots and the file of results are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine
from benchmarks.report import PAGE, RESULTS, replace_section, table
from benchmarks.serving import plots
from benchmarks.serving.cells import USUAL, Cell
from benchmarks.serving.contenders import CONTENDERS, LIMIT, LONGER
from benchmarks.serving.environments import environment, versions
from benchmarks.serving.matrix import Matrix
from benchmarks.serving.medians import Figures, Medians
from benchmarks.serving.results import Key, Row

NAME = "serving"
AHEAD = 0.97
"""IEI is behind where it does less than this share of the best peer: figures that are closer are the same."""

FEW = 3
"""Loads that are named where they failed for one reason. Of more, only the models."""


def tables(matrix: Matrix, rows: Mapping[Key, Row]) -> str:
    """Everything that the page says, from what was measured with this matrix."""
    medians = Medians(rows)
    sections = [
        _how(matrix, medians),
        _throughput(matrix, medians),
        _ratios(matrix, medians),
        _limits(matrix, medians),
        *(_sweep(title, cells, medians) for title, cells in _sweeps(matrix, medians)),
        _costs(matrix, medians),
        _losses(medians),
        _failures(medians),
    ]
    return "\n\n".join(section for section in sections if section)


def write(matrix: Matrix, rows: Mapping[Key, Row], text: str, environments: Path) -> None:
    """Writes the results, the plots, and the page's section."""
    medians = Medians(rows)
    of = {each.name: versions(environment(each, environments)) for each in CONTENDERS if _measured(each.name, medians)}
    content = {
        "machine": machine.describe(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "versions": of,
        "matrix": asdict(matrix),
        "rows": [asdict(row) for row in rows.values()],
    }
    (RESULTS / f"{NAME}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    pictures = plots.draw(matrix, medians, PAGE.parent / "images")
    shown = [f"![{title}](images/{file.name})" for file, title in pictures.items()]
    replace_section(PAGE, NAME, "\n\n".join([text, *shown, _versions(of)]))


def _measured(contender: str, medians: Medians) -> bool:
    return any(row.contender == contender for row in medians.rows)


def _how(matrix: Matrix, medians: Medians) -> str:
    where = machine.describe()
    longer = ", ".join(f"{model}: {matrix.seconds_of(model):g} s" for model in matrix.models if model in LONGER)
    least = min((row.cosine for row in medians.rows if row.cosine is not None), default=1.0)
    others = max((row.others for row in medians.rows if row.others is not None), default=0.0)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {where['cpu']}, {where['cores']} cores, Python {where['python']}; "
        f"{_rounds(medians)} of {matrix.seconds:g} s{longer and f' ({longer})'} for each figure "
        f"after {matrix.warmup_s:g} s of warm-up. "
        f"JPEGs of {USUAL} pixels, one a request, unless said. The least cosine of any contender's vector with "
        f"transformers': {least:.5f}. "
        f"Other programs used at most {others:.2f} cores during a measurement."
    )


def _rounds(medians: Medians) -> str:
    """How many rounds there are of all models, and of which there are more."""
    of = {row.cell.model: row.round for row in sorted(medians.rows, key=lambda row: row.round)}  # the last one counts
    least = min(of.values(), default=0)
    more = ", ".join(f"{model}: {count}" for model, count in of.items() if count > least)
    return f"medians of {least} round{'s' * (least != 1)}{more and f' ({more})'}"


def _throughput(matrix: Matrix, medians: Medians) -> str:
    """Contenders by models, at most and least connections of the trial."""
    few, many = matrix.trial[0], matrix.trial[-1]

    def cell_text(contender: str, model: str) -> str:
        busy, lone = (medians.of(contender, Cell(model, connections)) for connections in (many, few))
        return f"{_number(busy.rate)} ({_number(lone.rate)})" if busy and lone else "–"

    cells = [Cell(model, many) for model in matrix.models]
    body = [
        [each.name, *(cell_text(each.name, model) for model in matrix.models)] for each in medians.contenders(cells)
    ]
    return table([f"pictures/s at {many} connections ({few})", *matrix.models], body) if body else ""


def _ratios(matrix: Matrix, medians: Medians) -> str:
    """Ours, divided by the best peer."""

    def ratio(contender: str, cell: Cell) -> str:
        own, peer = medians.of(contender, cell), medians.best_peer(cell)
        return f"{own.rate / peer[1].rate:.2f}" if own and peer else "–"

    cells = [Cell(model, connections) for model in matrix.models for connections in reversed(matrix.trial)]
    ours = [each.name for each in medians.contenders(cells) if each.ours]
    body = [
        [f"{cell.model}, {cell.connections} connections", *(ratio(name, cell) for name in ours), peer[0]]
        for cell in cells
        if (peer := medians.best_peer(cell))
    ]
    return table(["÷ the best peer", *ours, "which one"], body) if body and ours else ""


def _limits(matrix: Matrix, medians: Medians) -> str:
    """What IEI serves of the most that its parts could."""
    body = []
    for model in matrix.models:
        cell = Cell(model, matrix.trial[-1])
        own, parts = medians.of("IEI", cell), medians.of(LIMIT, cell)
        if own and parts:
            limit = 1e3 * int(machine.describe()["cores"]) / sum(parts.cpu_ms.values())
            stages = ", ".join(f"{stage} {_number(used)}" for stage, used in parts.cpu_ms.items())
            body.append([model, _number(limit), stages, f"{own.rate / limit:.2f}"])
    columns = ["IEI's limit: cores ÷ CPU time of its parts", "pictures/s", "CPU-ms", f"served at {matrix.trial[-1]}"]
    return table(columns, body) if body else ""


def _sweeps(matrix: Matrix, medians: Medians) -> list[tuple[str, list[Cell]]]:
    """What is measured besides the trial: titles of tables, and their columns."""
    found = []
    for sweep in matrix.sweeps:
        for model in sweep.models:
            if cells := [cell for cell in sweep.cells(model) if cell in medians.cells]:
                found.append((model, cells))
    return found


def _sweep(model: str, cells: list[Cell], medians: Medians) -> str:
    """One load a column."""
    open_loop = cells[0].share > 0

    def text(figures: Figures | None) -> str:
        if figures is None or figures.p50_ms is None or figures.p99_ms is None:
            return "–"
        waits = f"{_number(figures.p50_ms)}/{_number(figures.p99_ms)}"
        return waits if open_loop else f"{_number(figures.rate)} · {waits}"

    what = "p50/p99 in ms" if open_loop else "pictures/s · p50/p99 in ms"
    columns = [str(cell).removeprefix(f"{model}, ") for cell in cells]
    body = [
        [each.name, *(text(medians.of(each.name, cell)) for cell in cells)]
        for each in medians.contenders(cells)
        if not each.bare
    ]
    return table([f"{model}: {what}", *columns], body)


def _costs(matrix: Matrix, medians: Medians) -> str:
    """Memory, CPU time and the time to be ready, with the most connections of the trial."""
    body = []
    for model in matrix.models:
        cell = Cell(model, matrix.trial[-1])
        for each in medians.contenders([cell]):
            figures = medians.of(each.name, cell)
            if figures is None:
                continue
            roles = ", ".join(f"{role} {_number(used)}" for role, used in figures.cpu_ms.items())
            body.append(
                [
                    f"{model}, {each.name}" + f" ({figures.setup})" * (len(each.setups) > 1),
                    f"{sum(figures.pss_mib.values()):.0f}" if figures.pss_mib else "–",
                    f"{figures.ready_s:.0f}" if figures.ready_s is not None else "–",
                    _number(sum(figures.cpu_ms.values())),
                    roles,
                ]
            )
    columns = [f"{matrix.trial[-1]} connections", "MiB (PSS)", "s until ready", "CPU-ms a picture", "of these"]
    return table(columns, body) if body else ""


def _losses(medians: Medians) -> str:
    """Where a peer is ahead of IEI as it comes, in so many words."""
    compared = [
        (cell, own, peers)
        for cell in sorted(medians.cells, key=str)
        if (own := medians.of("IEI", cell)) and (peers := medians.peers(cell))
    ]
    lost = []
    for cell, own, peers in compared:
        for what, value, unit, less_is_better in _COMPARED:
            if cell.share and what == "throughput":
                continue  # the rate of an open loop is given, not found
            mine, known = value(own), {name: found for name, figures in peers.items() if (found := value(figures))}
            if not known or not mine:
                continue
            best = (min if less_is_better else max)(known, key=lambda name: known[name])
            if (known[best] / mine if less_is_better else mine / known[best]) < AHEAD:
                lost.append(f"- {cell}: {what} {_number(mine)} {unit}, {best} {_number(known[best])}.")
    if not compared:
        return ""
    return "Where IEI in float32 is behind the best peer:\n\n" + ("\n".join(lost) or "- nowhere in these tables.")


_COMPARED: tuple[tuple[str, Callable[[Figures], float | None], str, bool], ...] = (
    ("throughput", lambda figures: figures.rate, "pictures/s", False),
    ("p99", lambda figures: figures.p99_ms, "ms", True),
    ("memory", lambda figures: sum(figures.pss_mib.values()), "MiB", True),
    ("CPU", lambda figures: sum(figures.cpu_ms.values()), "ms a picture", True),
)
"""What, in which figures, its unit, and whether less is better."""


def _failures(medians: Medians) -> str:
    """What has no figure, and why."""
    reasons: dict[tuple[str, str], list[Cell]] = {}
    for row in medians.failed:
        reasons.setdefault((f"{row.contender}, {row.setup}" if row.setup else row.contender, row.error), []).append(
            row.cell
        )
    lines = []
    for (who, error), cells in reasons.items():
        loads = dict.fromkeys(map(str, cells) if len(cells) <= FEW else (cell.model for cell in cells))
        lines.append(f"- {who} ({'; '.join(loads)}): {_quoted(error)}")
    return "Not measured:\n\n" + "\n".join(lines) if lines else ""


def _quoted(error: str, most: int = 200) -> str:
    """Its end as code, so that no character of it means anything to Markdown."""
    short = error if len(error) <= most else "… " + error[-most:]
    return "`" + short.replace("`", "'") + "`"


def _versions(of: Mapping[str, Mapping[str, str]]) -> str:
    """Contenders of the same versions share a line."""
    lines: dict[str, list[str]] = {}
    for name, packages in of.items():
        lines.setdefault(", ".join(f"{package} {version}" for package, version in packages.items()), []).append(name)
    return "Versions:\n\n" + "\n".join(f"- {', '.join(names)}: {packages}." for packages, names in lines.items())


def _number(value: float) -> str:
    """Three digits, and whole numbers from 100 on."""
    digits = next((digits for digits, least in ((0, 99.95), (1, 9.995)) if value >= least), 2)
    return f"{value:.{digits}f}"
