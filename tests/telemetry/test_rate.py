"""How long a queue will take: its length divided by the rate that was measured while there was one."""

from __future__ import annotations

import pytest

from iei.telemetry.counters import Counters
from iei.telemetry.metrics import BATCHES, FORWARD_SECONDS, IN_WORK, INPUTS, METRICS, RATE, RUNNING
from iei.telemetry.rate import drain_seconds, sample, waiting

LABELS = ("vit", "interactive")


class Server:
    """Counts like one, by a clock of its own."""

    def __init__(self) -> None:
        self.counters = Counters(METRICS)
        self.now = 1000.0
        sample(self.counters, self.now)

    def second(self, left: int, in_work: int, running: int = 0) -> None:
        """One in which inputs leave, with those that are there at its end."""
        self.counters.add(INPUTS, ("vit", "image", "interactive"), left)
        self.counters.set(IN_WORK, LABELS, in_work)
        self.counters.set(RUNNING, LABELS, running)
        self.now += 1
        sample(self.counters, self.now)

    @property
    def rate(self) -> float:
        return self.counters.read().values(RATE).get(("vit",), 0.0)

    @property
    def drain(self) -> float:
        return drain_seconds(self.counters.read())["vit"]


@pytest.fixture
def server() -> Server:
    return Server()


def test_waiting_is_what_is_in_work_and_not_in_a_forward(server: Server) -> None:
    server.second(left=0, in_work=10, running=4)
    assert waiting(server.counters.read()) == {LABELS: 6}
    server.second(left=0, in_work=2, running=4)  # the clients of two have gone
    assert waiting(server.counters.read()) == {LABELS: 0}


def test_a_queue_takes_its_length_divided_by_the_rate(server: Server) -> None:
    for _ in range(5):
        server.second(left=20, in_work=108, running=8)
    assert server.rate == pytest.approx(20)
    assert server.drain == pytest.approx(5)


def test_idle_time_does_not_change_the_rate_and_nothing_waits(server: Server) -> None:
    server.second(left=0, in_work=100)
    server.second(left=20, in_work=80)
    for _ in range(100):
        server.second(left=0, in_work=0)
    assert (server.rate, server.drain) == (20, 0)


def test_a_trickle_says_little_and_a_queue_much(server: Server) -> None:
    """One input a second, each waiting a little while it is decoded, and then a thousand at once."""
    for _ in range(60):
        server.second(left=1, in_work=1)
    assert server.rate == pytest.approx(1)
    for _ in range(3):
        server.second(left=50, in_work=1000)
    assert server.rate == pytest.approx(50, rel=0.05)


def test_the_rate_follows_what_the_server_can_do_now(server: Server) -> None:
    for left in [100] * 60 + [10] * 90:
        server.second(left=left, in_work=50)
    assert server.rate == pytest.approx(10, rel=0.5)


def test_several_processes_take_one_sample_a_second(server: Server) -> None:
    server.second(left=0, in_work=100)
    server.second(left=20, in_work=100)
    server.counters.add(INPUTS, ("vit", "image", "interactive"), 10)
    sample(server.counters, server.now + 0.5)
    assert server.rate == 20


def test_before_the_first_measurement_the_rate_is_that_of_the_forwards(server: Server) -> None:
    server.counters.set(IN_WORK, LABELS, 30)
    assert server.drain == 30  # nothing is known: one a second
    server.counters.observe(BATCHES, ("vit", "image"), 8)
    server.counters.observe(FORWARD_SECONDS, ("vit", "image"), 0.8)
    assert server.drain == pytest.approx(3)
