"""Numbers that several processes count together, and what is left of those that have been killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iei.telemetry import counters as module
from iei.telemetry.counters import PROCESSES, Counters, Metric

DONE = Metric("done_total", "counter", "Done.", ("what",))
BUSY = Metric("busy", "gauge", "Busy.", ("what",))
TOOK = Metric("took", "histogram", "Took.", buckets=(1.0, 2.0))
METRICS = (DONE, BUSY, TOOK, PROCESSES)

COUNTING = """
import sys
from iei.telemetry.counters import Counters
from tests.telemetry.test_counters import BUSY, DONE, METRICS, TOOK
counters = Counters(METRICS, int(sys.argv[1]))
counters.join("worker")
counters.add(DONE, (sys.argv[2],), 3)
counters.set(BUSY, (sys.argv[2],), 5)
counters.observe(TOOK, (), 1.5)
print("counted", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(counters: Counters, what: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has counted, and lives until the end of the block or until it is killed."""
    command = [sys.executable, "-c", COUNTING, str(counters.fd), what]
    with subprocess.Popen(
        command, pass_fds=[counters.fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "counted\n"
        yield process


def test_what_the_killed_have_counted_stays_and_their_gauges_go() -> None:
    counters = Counters(METRICS)
    counters.join("master")
    counters.add(DONE, ("ours",))
    with another_process(counters, "theirs") as process:
        counters.add(DONE, ("theirs",))
        reading = counters.read()
        assert reading.values(DONE) == {("ours",): 1, ("theirs",): 4}
        assert reading.values(BUSY) == {("theirs",): 5}
        assert reading.processes()[process.pid] == "worker"
        process.kill()
    reading = counters.read()
    assert reading.values(DONE) == {("ours",): 1, ("theirs",): 4}
    assert reading.values(BUSY) == {("theirs",): 0}
    assert list(reading.processes().values()) == ["master"]


def test_a_new_process_goes_on_where_a_dead_one_was() -> None:
    """Else the table would be full after so many restarts."""
    counters = Counters(METRICS)
    for _ in range(2):
        with another_process(counters, "it") as process:
            process.kill()
    with another_process(counters, "other"):
        reading = counters.read()
    assert reading.values(DONE) == {("it",): 6, ("other",): 3}
    assert reading.values(BUSY) == {("it",): 0, ("other",): 5}
    assert reading.histograms(TOOK)[()].tolist() == [0, 3, 0, 4.5]
    assert len(reading.processes()) == 1
    assert counters._header[module._USED] == 2


@pytest.mark.parametrize(("value", "counts"), [(0.5, [1, 0, 0]), (1, [1, 0, 0]), (2, [0, 1, 0]), (2.1, [0, 0, 1])])
def test_a_bucket_holds_its_bound(value: float, counts: list[int]) -> None:
    counters = Counters(METRICS)
    counters.observe(TOOK, (), value)
    assert counters.read().histograms(TOOK)[()].tolist() == [*counts, value]


def test_one_observation_may_stand_for_several() -> None:
    counters = Counters(METRICS)
    counters.observe(TOOK, (), 1.5, 4)
    assert counters.read().histograms(TOOK)[()].tolist() == [0, 4, 0, 6]


def test_what_there_is_no_room_for_is_said_once_and_harms_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "NAMES_BYTES", len('["done_total", "first"]\n["done_total", "second"]\n'))
    counters = Counters(METRICS)
    for what in ("first", "second", "third"):
        for _ in range(2):
            counters.add(DONE, (what,))
    counters.observe(TOOK, (), 1)
    reading = counters.read()
    assert reading.values(DONE) == {("first",): 2, ("second",): 2}
    assert reading.histograms(TOOK) == {}
    assert [record.args for record in caplog.records] == [("done_total", ("third",)), ("took", ())]


def test_labels_may_have_any_characters() -> None:
    counters = Counters(METRICS)
    strange = ('new\nline "quoted" →',)
    counters.add(DONE, strange)
    assert Counters(METRICS, _copied(counters.fd)).read().values(DONE) == {strange: 1}


def test_the_memory_is_not_taken_before_it_is_used() -> None:
    counters = Counters(METRICS)
    counters.join("worker")
    counters.add(DONE, ("it",))
    pages = os.fstat(counters.fd).st_blocks * 512
    assert pages < 2**17


def _copied(fd: int) -> int:
    return os.dup(fd)
