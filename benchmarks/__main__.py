"""The table: IEI beside what one would serve a model with instead, on this machine, in one run.

    uv run --group plots python -m benchmarks [--quick] [--only NAME…] [--models MODEL…] [--minutes N]

Each contender comes from its public package, in an environment that uv makes; its vectors are compared with those of
transformers before it is measured. Rounds go over all contenders, so that a machine that slows down slows down all of
them; medians over the rounds are reported. What was measured is kept in the folder `.benchmarks`: a call that is ended
loses one cell, and the next one measures what is missing (`--fresh`: everything). Writes
benchmarks/results/serving.json, the section "serving" of docs/benchmarks.md, and docs/images/serving-*.svg (with
--quick only if --write is given, too). Run nothing else on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.report import ROOT, progress
from benchmarks.serving import measure, page
from benchmarks.serving.contenders import ALL_MODELS, BY_NAME, CONTENDERS, Contender
from benchmarks.serving.environments import NotInstalled, environment
from benchmarks.serving.inputs import prepare
from benchmarks.serving.matrix import FULL, QUICK, Matrix, jobs, missing, seconds_left
from benchmarks.serving.results import Key, Results, Row

FOLDER = ROOT / ".benchmarks"


def main() -> None:
    """Measures what is missing, prints the tables, and writes them down."""
    arguments = _parser().parse_args()
    matrix = QUICK if arguments.quick else FULL
    matrix = replace(matrix, models=tuple(arguments.models or matrix.models))
    folder: Path = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ("quick.jsonl" if arguments.quick else "full.jsonl")
    if arguments.fresh:
        file.unlink(missing_ok=True)
    results = Results(file, matrix.models)
    contenders = [BY_NAME[name] for name in arguments.only or BY_NAME]
    until = time.monotonic() + 60 * arguments.minutes
    go(matrix, contenders, folder, results, until)
    if left := seconds_left(matrix, contenders, results.rows):
        progress(f"missing or failed: about {left / 60:.0f} minutes; the same call goes on there")
    text = page.tables(matrix, results.rows)
    print(text)
    if arguments.write or not arguments.quick:
        page.write(matrix, results.rows, text, folder / "environments")


def go(matrix: Matrix, contenders: list[Contender], folder: Path, results: Results, until: float) -> None:
    """One job after the other, until all is measured or it is time to stop."""
    tried: set[Key] = set()
    for job in jobs(matrix, contenders, results.rows):
        cells = missing(job, results.rows, tried)
        if not cells:
            continue
        if time.monotonic() > until:
            return
        progress(f"about {seconds_left(matrix, contenders, results.rows) / 60:.0f} minutes left")
        inputs = prepare(folder / "inputs", cells[0].model, list(dict.fromkeys(cell.size for cell in cells)))
        try:
            programs = environment(job.contender, folder / "environments")
        except NotInstalled as error:
            results.add(Row(job.round, job.contender.name, job.setup, cell, error=str(error)) for cell in cells)
            progress(f"{job.contender.name}: {error}")
        else:
            measure.run(job, cells, matrix, programs, inputs, results)
        tried.update(job.places())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="half an hour: four models, one round")
    parser.add_argument(
        "--only", nargs="+", choices=[each.name for each in CONTENDERS], metavar="NAME", help="of %(choices)s"
    )
    parser.add_argument(
        "--models", nargs="+", choices=ALL_MODELS, metavar="MODEL", help="of %(choices)s; others are not shown either"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="starts no server after so many")
    parser.add_argument("--fresh", action="store_true", help="forgets what was measured")
    parser.add_argument("--write", action="store_true", help="with --quick: writes the page, too")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="for environments, models and results (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    main()
