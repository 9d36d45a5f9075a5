"""The table of contenders: what is measured, what is kept, and what is said of it."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.report import PAGE
from benchmarks.serving import measure, page, plots
from benchmarks.serving.cells import Cell
from benchmarks.serving.contenders import BY_NAME, CONTENDERS, LOCKED, Contender, Setup
from benchmarks.serving.matrix import FULL, QUICK, Job, Matrix, Sweep, jobs, missing
from benchmarks.serving.medians import Medians
from benchmarks.serving.results import Key, Results, Row
from benchmarks.serving.server import NotReady, Sample, running
from tests.servers import ROOT

LONE, BUSY, MANY, OPEN = Cell("M", 1), Cell("M", 16), Cell("M", 64), Cell("M", share=0.5)
MATRIX = Matrix(
    models=("M",),
    trial=(1, 16),
    sweeps=(Sweep(("M",), shares=(0.5,)), Sweep(("M",), connections=(1, 16, 64))),
    rounds=2,
    seconds=1,
    warmup_s=1,
)
FIRST, SECOND = Setup("first", "x"), Setup("second", "x")
TWO = Contender("two", (), (FIRST, SECOND), "two set-ups", models=("M",))
PROGRAMS = Path(sys.executable).parent
ONE = Contender("one", (), (FIRST,), "one set-up", models=("M",))


def keyed(*rows: Row) -> dict[Key, Row]:
    return {row.key: row for row in rows}


def row(contender: str, rate: float, cell: Cell = BUSY, number: int = 1, setup: str = "first") -> Row:
    p50_ms, p99_ms = 1e3 / rate, 2e3 / rate
    return Row(
        number, contender, setup, cell, rate, p50_ms, p99_ms, cpu_ms={"worker": 1.0}, pss_mib={"worker": [8.0, 8.0]}
    )


def run(matrix: Matrix, contenders: list[Contender], rates: Mapping[str, float]) -> Iterator[Job]:
    """All jobs, as if each gave the rate of its set-up."""
    done: dict[Key, Row] = {}
    for job in jobs(matrix, contenders, done):
        yield job
        done |= keyed(*(row(job.contender.name, rates[job.setup], cell, job.round, job.setup) for cell in job.cells))


def test_rounds_go_over_all_contenders_and_the_best_set_up_goes_on_alone() -> None:
    found = [
        (job.round, job.contender.name, job.setup, job.cells)
        for job in run(MATRIX, [TWO, ONE], {"first": 1, "second": 2})
    ]
    trial, rest = (LONE, BUSY), (MANY, OPEN)
    assert found == [
        (number, *each)
        for number in (1, 2)
        for each in (
            ("two", "first", trial),
            ("two", "second", trial),
            ("two", "second", rest),
            ("one", "first", trial + rest),
        )
    ]


def test_no_cell_of_the_matrices_is_measured_twice_and_open_loops_come_last() -> None:
    for matrix in (FULL, QUICK):
        places = [
            place for job in run(matrix, list(CONTENDERS), dict.fromkeys(_setups(), 1.0)) for place in job.places()
        ]
        assert len(places) == len(set(places))
        for model in matrix.models:
            shares = [cell.share > 0 for cell in matrix.rest(model)]
            assert shares == sorted(shares)


def _setups() -> list[str]:
    return [setup.name for contender in CONTENDERS for setup in contender.setups]


def test_what_was_measured_is_read_again_and_failures_are_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    failed = Row(1, "one", "first", BUSY, error="it ended")
    Results(file).add([row("one", 5, LONE), failed])
    again = Results(file)
    assert again.rows == keyed(row("one", 5, LONE), failed)
    job = next(jobs(MATRIX, [ONE], again.rows))
    assert missing(job, again.rows, tried=()) == [BUSY, MANY, OPEN]
    assert missing(job, again.rows, tried={failed.key}) == [MANY, OPEN]
    again.add([row("one", 7)])
    assert Results(file).rows[failed.key] == row("one", 7)


def test_figures_are_medians_over_rounds_of_the_fastest_set_up() -> None:
    rates = {"workers": (10, 30, 20), "batches": (15, 14, 99)}
    rows = [row("LitServe", rate, BUSY, number, setup) for setup in rates for number, rate in enumerate(rates[setup])]
    figures = Medians(keyed(*rows)).of("LitServe", BUSY)
    assert figures
    assert (figures.setup, figures.rate, figures.rounds) == ("workers", 20, 3)
    assert figures.pss_mib == {"worker": 16.0}


def test_a_peer_is_neither_ours_nor_a_bare_loop() -> None:
    medians = Medians(
        keyed(row("IEI", 90), row("IEI int8", 95), row("bare loop", 99), row("mosec", 50), row("LitServe", 60))
    )
    best = medians.best_peer(BUSY)
    assert best
    assert best[0] == "LitServe"


def test_the_page_names_wins_losses_and_failures() -> None:
    rows = keyed(
        row("IEI", 80),
        row("IEI", 30, LONE),
        row("mosec", 40),
        row("mosec", 45, LONE),
        Row(1, "LitServe", "workers", BUSY, error="it ended: `no|such` library"),
    )
    text = page.tables(replace(MATRIX, sweeps=()), rows)
    assert "80.0 (30.0)" in text
    assert "| M, 16 connections | 2.00 |" in re.sub(" +", " ", text)
    behind = text.partition("behind the best peer:")[2]
    assert "M, c=1: throughput 30.0 pictures/s, mosec 45.0." in behind
    assert "c=16: throughput" not in behind
    assert "LitServe, workers (M, c=16): `it ended: 'no|such' library`" in text


def test_the_page_says_of_which_model_there_are_more_rounds() -> None:
    other = replace(BUSY, model="N")
    assert "; medians of 1 round of" in page.tables(MATRIX, keyed(row("IEI", 80), row("IEI", 80, other)))
    text = page.tables(MATRIX, keyed(row("IEI", 80), row("IEI", 80, other), row("IEI", 90, other, 2)))
    assert "; medians of 1 round (N: 2) of" in text


@pytest.mark.parametrize("lonely", ["mosec", "IEI"])
def test_nothing_is_said_of_losses_before_both_sides_are_measured(lonely: str) -> None:
    assert "behind" not in page.tables(MATRIX, keyed(row(lonely, 40)))


def test_vectors_of_another_order_length_or_direction_are_seen() -> None:
    reference = np.eye(3)
    assert measure.cosine(2 * reference, reference) == pytest.approx(1)
    assert measure.cosine(reference[[1, 0, 2]], reference) == pytest.approx(0)
    with pytest.raises(measure.WrongVectors, match="shape"):
        measure.cosine(reference[:2], reference)


def test_cpu_time_is_per_picture_and_new_processes_count_from_their_start() -> None:
    before = Sample(0.0, 100.0, 7.0, {1: ("master", 5.0), 2: ("worker", 1.0)})
    after = Sample(2.0, 103.0, 7.5, {1: ("master", 5.0), 2: ("worker", 1.5), 3: ("worker", 0.5)})
    assert after.cpu_ms(before, 10) == {"master": 0.0, "worker": 100.0}
    assert after.others(before) == pytest.approx((3.0 - 1.0 - 0.5) / 2)


def test_an_open_loop_needs_the_closed_loops_of_its_own_set_up_and_round() -> None:
    wanted = Row(1, "one", "first", OPEN)
    others = [row("one", 50, BUSY), row("one", 60, MANY), row("one", 99, BUSY, 2), row("one", 99, BUSY, 1, "second")]
    assert measure.saturation(wanted, keyed(*others)) == 60
    with pytest.raises(RuntimeError, match="not known"):
        measure.saturation(wanted, keyed(*others[2:]))


def test_requests_of_several_pictures_begin_with_different_ones() -> None:
    assert measure.groups(["a", "b", "c"], 2) == [["a", "b"], ["b", "c"], ["c", "a"]]
    assert measure.groups(["a", "b"], 3) == [["a", "b", "a"], ["b", "a", "b"]]


def test_labels_are_moved_apart_in_their_order() -> None:
    moved = plots.spread({"a": 1.0, "b": 1.1, "c": 9.0}, least=1.0)
    assert moved["b"] - moved["a"] == pytest.approx(1)
    assert moved["c"] > moved["b"]
    assert sum(moved.values()) == pytest.approx(11.1)


def test_plots_name_each_line_and_have_no_background(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawings need the group plots")
    rows = keyed(*(row(name, rate, cell) for name, rate in {"IEI": 80, "mosec": 40}.items() for cell in (LONE, BUSY)))
    drawn = plots.draw(MATRIX, Medians(rows), tmp_path)
    assert len(drawn) == 4
    for file in drawn:
        svg = file.read_text()
        assert ">IEI</text>" in svg
        assert ">mosec</text>" in svg
        assert '"fill: #ffffff"' not in svg, "only letters on a bar are white"


def test_a_library_that_all_have_is_of_one_version() -> None:
    """IEI's come from uv.lock. The others' packages must say the same of what they share with it."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {package["name"]: package["version"] for package in lock["package"]}
    pinned = [package.split("==") for each in CONTENDERS for package in each.packages if package != LOCKED]
    shared = {name: version for name, version in pinned if name in locked}
    assert shared.keys() >= {"torch", "transformers"}
    assert shared == {name: locked[name] for name in shared}


def test_every_contender_has_a_line_on_the_page_and_a_colour() -> None:
    text = PAGE.read_text()
    for contender in CONTENDERS:
        assert f"| {contender.name} | {contender.what} |" in text
    assert set(plots.COLOURS) == set(BY_NAME)


def is_up(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.server
def test_a_server_is_watched_and_ended_with_its_children(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys; subprocess.run([sys.executable, '-m', 'http.server', sys.argv[1]], cwd=sys.argv[2])"
    )
    setup = Setup("", f'python -c "{child}" {{port}} {{model}}', {"IEI_MODEL": "{model}"})
    with running(setup, PROGRAMS, {"model": str(tmp_path)}, is_up, tmp_path / "log") as server:
        processes = server.processes()
        assert len(processes) == 2
        assert {role for role, _ in server.sample().server.values()} == {"master", "worker"}
        assert sum(sum(sizes) for sizes in server.pss_mib().values()) > 1
    assert not server.processes()


@pytest.mark.server
def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    setup = Setup("", "python -c \"import sys; sys.exit('no such model')\"")
    with (
        pytest.raises(NotReady, match="status 1: no such model"),
        running(setup, PROGRAMS, {"model": "m"}, is_up, tmp_path / "log"),
    ):
        raise AssertionError("it runs")
