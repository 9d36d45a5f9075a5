"""How long a connection is left to other workers, by what they have said."""

from __future__ import annotations

from time import monotonic

import pytest

from iei.serving.spread import MOST_STEPS, STEP_S, Spread
from iei.telemetry import counters as module
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import ACCEPTING_AT, CONNECTIONS, METRICS

SILENT = -60.0
"""Seconds since it was heard of."""


def worker(own: int, others: dict[int, float]) -> Spread:
    """One that has `own` connections; of `others`, how many each has, and when it has been heard of."""
    counters = Counters(METRICS)
    counters.join("worker")
    spread = Spread(counters)
    spread.enter()
    spread.tell(own)
    counters._header[module._USED] += len(others)
    counters.by_process(CONNECTIONS)[1:] = list(others)
    counters.by_process(ACCEPTING_AT)[1:] = [monotonic() + heard for heard in others.values()]
    return spread


@pytest.mark.parametrize(
    ("own", "others", "steps"),
    [
        (5, {}, 0),
        (5, {5: 0.0}, 0),
        (5, {9: 0.0, 7: 0.0}, 0),
        (5, {9: 0.0, 3: 0.0}, 2),
        (500, {3: 0.0}, MOST_STEPS),
        (100, {96: 0.0}, 0),
        (5, {3: SILENT}, 0),
    ],
    ids=["alone", "as many", "fewest", "more", "many more", "a few more of many", "more than one that hangs"],
)
def test_a_worker_waits_for_those_with_fewer(own: int, others: dict[int, float], steps: int) -> None:
    assert worker(own, others).wait_s() == pytest.approx(steps * STEP_S)


@pytest.mark.parametrize(("others", "steps"), [({}, 0), ({9: 0.0}, MOST_STEPS)], ids=["alone", "not alone"])
def test_a_worker_that_drains_leaves_connections_to_those_that_stay(others: dict[int, float], steps: int) -> None:
    spread = worker(0, others)
    spread.leave()
    spread.beat()
    assert spread.wait_s() == pytest.approx(steps * STEP_S)


def test_a_worker_whose_port_is_not_open_is_none_of_those_with_fewer() -> None:
    counters = Counters(METRICS)
    counters.join("worker")
    spread = Spread(counters)
    spread.beat()
    assert not counters.by_process(ACCEPTING_AT).any()
    spread.enter()
    assert counters.by_process(ACCEPTING_AT).any()
