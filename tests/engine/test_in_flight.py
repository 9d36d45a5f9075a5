from __future__ import annotations

from functools import partial

import pytest

from iei.engine import in_flight
from iei.engine.batcher import Job
from iei.engine.execute import Outcome, Pending
from iei.engine.in_flight import LOOK_S, MARGIN_S, MOST_KINDS, SLOWER, InFlight
from iei.engine.watchdog import Timer
from tests.engine.runtimes_for_tests import SPEC
from tests.engine.test_watchdog import Faulthandler


class Clock:
    """`time`, as far as it is needed here."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(in_flight, "time", clock)
    return clock


class Flights:
    """Batches of known durations."""

    def __init__(self, clock: Clock) -> None:
        self.all: InFlight[str] = InFlight(Timer(None))
        self._clock = clock
        self._free_at = 0.0

    def begin(self, seconds: float, *, key: str = "pictures", begin_s: float = 0.0) -> None:
        """The device takes `seconds` for the batch, and whoever begins it takes `begin_s`."""
        started = max(self._free_at, self._clock.now)
        done = self._free_at = started + seconds

        def finish() -> list[Outcome]:
            self._clock.now = max(self._clock.now, done)
            return []

        def begin() -> Pending:
            self._clock.now += begin_s
            return Pending(lambda: self._clock.now >= done, finish)

        self.all.begin([Job("owner", 0, key, 0.0, payload="")], begin, SPEC)

    def wait(self) -> float:
        """Waits as the scheduler does until something is to be done; returns for how long."""
        began = self._clock.now
        while wait_s := self.all.wait_s:
            self._clock.now += wait_s
        return self._clock.now - began


@pytest.fixture
def flights(clock: Clock) -> Flights:
    return Flights(clock)


def test_the_first_of_a_kind_is_not_waited_for(flights: Flights) -> None:
    flights.begin(1.0)
    assert flights.all.wait_s == 0


def test_beginning_another_may_wait_until_the_first_is_about_to_be_done(flights: Flights) -> None:
    flights.begin(1.0)
    flights.all.finish()
    flights.begin(1.0, begin_s=0.25)
    assert flights.wait() == pytest.approx(1.0 - 2 * 0.25, abs=3 * MARGIN_S)  # a begin has passed, another will
    assert not flights.all.is_done


def test_what_a_batch_takes_to_begin_while_another_is_computed_may_have_a_forward_in_it(flights: Flights) -> None:
    flights.begin(1.0, begin_s=0.25)
    flights.begin(1.0, begin_s=0.75)
    flights.all.finish()
    assert flights.wait() == pytest.approx(1.0 - 0.25, abs=3 * MARGIN_S)
    flights.begin(1.0, begin_s=0.125)
    flights.all.finish()
    assert flights.wait() == pytest.approx(1.0 - 0.125, abs=3 * MARGIN_S)


def test_a_batch_that_is_done_sooner_than_expected_is_seen_soon_and_was_done_then(flights: Flights) -> None:
    flights.begin(1.0)
    flights.all.finish()
    flights.begin(0.1)
    assert flights.wait() == pytest.approx(0.1, abs=LOOK_S)
    assert flights.all.is_done
    flights.begin(2.0)
    assert flights.all.finish().seconds == pytest.approx(0.1, abs=LOOK_S)
    assert flights.all.finish().started == pytest.approx(101.1, abs=LOOK_S)


def test_milliseconds_are_rounded_down_because_epoll_rounds_up(flights: Flights) -> None:
    flights.begin(0.0015 + MARGIN_S)
    flights.all.finish()
    flights.begin(1.0)
    assert flights.all.wait_s == pytest.approx(0.001)


def test_the_second_batch_is_computed_from_when_the_first_is_done(clock: Clock, flights: Flights) -> None:
    flights.begin(1.0)
    clock.now += 0.5
    flights.begin(2.0)
    assert flights.all.is_full
    first, second = flights.all.finish(), flights.all.finish()
    assert (first.started, first.seconds) == (100.0, 1.0)
    assert (second.started, second.seconds) == (101.0, 2.0)
    assert not flights.all


def test_what_is_expected_falls_at_once_and_grows_slowly(flights: Flights) -> None:
    waits = []
    for seconds in (1.0, 0.5, 1.0, 1.0, 1.0):
        flights.begin(seconds)
        waits.append(flights.wait())
        flights.all.finish()
    assert waits == pytest.approx([0.0, 0.5, 0.5, 0.5 * SLOWER, 0.5 * SLOWER**2], abs=3 * MARGIN_S)


def test_kinds_are_told_apart_and_not_kept_for_ever(flights: Flights) -> None:
    flights.begin(1.0)
    flights.all.finish()
    flights.begin(1.0, key="others")
    assert flights.all.wait_s == 0
    flights.all.finish()
    for number in range(2 * MOST_KINDS):
        flights.begin(1.0, key=str(number))
        flights.all.finish()
    assert len(flights.all._expected) <= MOST_KINDS


def test_each_batch_has_the_whole_time_from_when_the_device_has_come_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Faulthandler(monkeypatch)
    flights: InFlight[str] = InFlight(Timer(9.0))
    for name in ("first", "second"):
        flights.begin([Job("owner", 0, name, 0.0, payload="")], partial(Pending, lambda: False, list), SPEC)
    assert asked.events == ["10 s"]
    for _ in range(2):
        asked.now += 2.0
        flights.finish()
    assert asked.events == ["10 s", "over"] * 2


def test_the_time_of_a_batch_that_could_not_be_begun_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    Faulthandler(monkeypatch)

    def begin() -> Pending:
        raise RuntimeError("no")

    timer = Timer(9.0)
    flights: InFlight[str] = InFlight(timer)
    with pytest.raises(RuntimeError):
        flights.begin([Job("owner", 0, "key", 0.0, payload="")], begin, SPEC)
    assert timer.rest_s == 1.0
