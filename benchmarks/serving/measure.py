"""One start of a contender's server: its vectors are checked, and then its cells are measured."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvloop

from benchmarks import load, open_load
from benchmarks.report import ROOT, progress
from benchmarks.serving.cells import Cell
from benchmarks.serving.contenders import Contender, Dialect, Setup
from benchmarks.serving.inputs import CHECKED, Inputs
from benchmarks.serving.matrix import Job, Matrix
from benchmarks.serving.results import Key, Results, Row
from benchmarks.serving.server import NotReady, Running, Sample, running
from benchmarks.simulation import arrivals

ASK_S = 60.0
"""For one request of a check."""


class WrongVectors(Exception):
    """A server answers others than transformers."""


class NotYet(WrongVectors):
    """It answers 503, as some do while they load."""


def run(job: Job, cells: Sequence[Cell], matrix: Matrix, programs: Path, inputs: Inputs, results: Results) -> None:
    """Measures these cells of a job, and adds a row for each to the results: a figure, or why there is none."""
    contender = job.contender
    setup = next(setup for setup in contender.setups if setup.name == job.setup)
    empty = {cell: Row(job.round, contender.name, job.setup, cell) for cell in cells}
    values = {
        "model": str(inputs.model),
        "pooling": inputs.pooling,
        "cache": str(inputs.folder / "cache"),
        "cores": str(len(os.sched_getaffinity(0))),
    }
    if contender.bare:
        results.add(
            bare(row, setup, programs, inputs, values | {"seconds": str(matrix.seconds_of(cell.model))})
            for cell, row in empty.items()
        )
        return
    sizes = list(dict.fromkeys(cell.size for cell in cells))
    size, left = sizes[0], list(cells)

    def answers(url: str) -> bool:
        try:
            return bool(ask(url, contender.dialect, inputs.pictures(size)[:1]))
        except (httpx.TransportError, NotYet):
            return False

    with tempfile.TemporaryDirectory(prefix="iei-benchmark-") as folder:
        try:
            with running(setup, programs, values, answers, Path(folder, "log")) as server:
                cosines = {size: check(server.url, contender, inputs, size) for size in sizes}
                while left:
                    cell = left[0]
                    row = replace(empty[cell], cosine=cosines[cell.size], ready_s=server.ready_s)
                    try:
                        row = measured(row, server, contender.dialect, inputs, matrix, results.rows)
                    except (RuntimeError, OSError, ExceptionGroup) as error:
                        row = replace(row, error=_sentence(error))
                    results.add([row])
                    left.pop(0)
                    progress(f"{cell}, {contender.name}, {job.setup}: {said(row)}")
        except (NotReady, WrongVectors, httpx.HTTPError) as error:
            results.add(replace(empty[cell], error=_sentence(error)) for cell in left)
            progress(f"{contender.name}, {job.setup}: {_sentence(error)}")


def bare(row: Row, setup: Setup, programs: Path, inputs: Inputs, values: Mapping[str, str]) -> Row:
    """The row with the figures of a loop without a server."""
    cell = row.cell
    program, *arguments = setup.command.split()
    said = {**values, "pictures": str(inputs.file(cell.size))}
    command = [str(programs / program), *(argument.format(**said) for argument in arguments)]
    environment = os.environ | {name: value.format(**said) for name, value in setup.environment.items()}
    batches = [str(2**power) for power in range(cell.connections.bit_length())]
    done = subprocess.run([*command, *batches], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        return replace(row, error=" ".join(done.stderr.split())[-500:])
    found = json.loads(done.stdout)
    row = replace(row, rate=found["rate"], cpu_ms=found["cpu_ms"])
    progress(f"{cell}, {row.contender}: {row.rate:.1f} pictures/s in batches of {found['batch']}")
    return row


def check(url: str, contender: Contender, inputs: Inputs, size: str) -> float:
    """The least cosine of several vectors with those of transformers, one picture a request and all in one.

    Raises:
        WrongVectors: it is too small.
    """
    pictures, reference = inputs.pictures(size)[:CHECKED], inputs.reference(size).astype(np.float64)
    single = [ask(url, contender.dialect, [picture])[0] for picture in pictures]
    together = ask(url, contender.dialect, pictures)
    least = min(cosine(np.array(found), reference) for found in (single, together))
    if not least >= contender.cosine:
        raise WrongVectors(f"its vectors have a cosine of {least:.4f} with transformers', for pictures of {size}")
    return least


def cosine(found: np.ndarray, reference: np.ndarray) -> float:
    """The least of several vectors, each with its own: float64[n, dimension].

    Raises:
        WrongVectors: there are more or fewer, or of another dimension.
    """
    if found.shape != reference.shape:
        raise WrongVectors(f"its vectors are of the shape {found.shape}, and transformers' are of {reference.shape}")
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
    return float(((found * reference).sum(axis=1) / lengths).min())


def ask(url: str, dialect: Dialect, pictures: Sequence[str]) -> list[list[float]]:
    """Vectors of one request.

    Raises:
        NotYet: the answer is 503.
        WrongVectors: it is another one than 200.
        httpx.TransportError: there is none.
    """
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(url + dialect.path, content=dialect.body(pictures), headers=headers, timeout=ASK_S)
    if answer.status_code != 200:
        raise (NotYet if answer.status_code == 503 else WrongVectors)(
            f"it answers {answer.status_code}: {answer.text[:300]}"
        )
    return dialect.vectors(answer.json())


def measured(
    row: Row, server: Running, dialect: Dialect, inputs: Inputs, matrix: Matrix, done: Mapping[Key, Row]
) -> Row:
    """The row with its figures.

    Raises:
        RuntimeError: an answer is no 200, or there is none.
    """
    cell = row.cell
    bodies = [dialect.body(pictures) for pictures in groups(inputs.pictures(cell.size), cell.pictures)]
    samples: list[Sample] = []
    if cell.share:
        most = saturation(row, done)
        moments = list(arrivals([(2 * matrix.seconds_of(cell.model), cell.share * most)], seed=row.round))
        samples.append(server.sample())
        result: dict[str, Any] = uvloop.run(open_load.run(server.url, bodies[0], moments, dialect.path))
        samples.append(server.sample())
        p50_s, p99_s = np.percentile(result["latencies_s"], (50, 99))
        pictures = len(moments) * cell.pictures
        figures = {"rate": cell.share * most, "p50_ms": p50_s * 1e3, "p99_ms": p99_s * 1e3}
    else:
        result = uvloop.run(
            load.run(
                server.url,
                bodies,
                cell.connections,
                matrix.warmup_s,
                matrix.seconds_of(cell.model),
                path=dialect.path,
                least=cell.connections,
                edge=lambda: samples.append(server.sample()),
            )
        )
        pictures = result["answers"] * cell.pictures
        figures = {name: result[name] for name in ("p50_ms", "p99_ms", "client_cpu")}
        figures["rate"] = result["rate"] * cell.pictures
    before, after = samples
    used, others = after.cpu_ms(before, pictures), after.others(before)
    return replace(row, **figures, cpu_ms=used, others=others, pss_mib=server.pss_mib())


def groups(pictures: Sequence[str], size: int) -> list[list[str]]:
    """As many groups as there are pictures, each of `size`, and each beginning with another one."""
    return [list(islice(cycle(pictures), start, start + size)) for start in range(len(pictures))]


def saturation(row: Row, done: Mapping[Key, Row]) -> float:
    """Pictures a second that the same set-up did at most with the same pictures, in closed loops of the same round.

    Raises:
        RuntimeError: it was not measured.
    """
    cell = row.cell
    rates = [
        other.rate
        for other in done.values()
        if (other.round, other.contender, other.setup) == (row.round, row.contender, row.setup)
        and (other.cell.model, other.cell.size, other.cell.pictures) == (cell.model, cell.size, cell.pictures)
        and other.cell.connections
        and other.rate is not None
    ]
    if not rates:
        raise RuntimeError("what it does at most is not known: its closed loops failed")
    return max(rates)


def said(row: Row) -> str:
    """A row in a line, to see how it goes."""
    if row.error or row.rate is None or row.p50_ms is None or row.p99_ms is None:
        return row.error
    return f"{row.rate:.1f} pictures/s, p50 {row.p50_ms:.0f} ms, p99 {row.p99_ms:.0f} ms"


def _sentence(error: BaseException) -> str:
    """In one line; of a group, its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__ if not str(error) else error}".split())[:600]
