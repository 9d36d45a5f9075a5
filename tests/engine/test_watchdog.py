from __future__ import annotations

import faulthandler
import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from iei.engine.answers import Answer, Status
from iei.engine.execute import Failure, execute
from iei.engine.loaded_models import LoadedModels
from iei.engine.scheduler import Request, Scheduler
from iei.engine.watchdog import Timer, Watchdog
from iei.runtimes.api import Input
from tests.engine.runtimes_for_tests import KnownRuntime
from tests.engine.test_execute import CULPRIT, fails_on_the_culprit, tasks


class Faulthandler:
    """What is asked of faulthandler, and the time that the timer goes by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.now = 100.0

        def later(timeout: float, exit: bool) -> None:
            self.events.append(f"{timeout:g} s" if exit else "without an end")

        monkeypatch.setattr(faulthandler, "dump_traceback_later", later)
        monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: self.events.append("over"))
        monkeypatch.setattr("iei.engine.watchdog.time", SimpleNamespace(monotonic=lambda: self.now))


def test_every_forward_has_the_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Faulthandler(monkeypatch)

    def slow(batch: Sequence[Input]) -> None:
        asked.now += 2.0
        fails_on_the_culprit(batch)

    outcomes = execute(Watchdog(KnownRuntime(slow), Timer(9.0)).run, tasks(1, CULPRIT))
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, True]
    assert asked.events == ["10 s", "over"] * 3  # both together, then each alone


def test_quick_forwards_share_what_was_set_and_an_idle_process_has_nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Faulthandler(monkeypatch)
    timer = Timer(9.0)
    assert timer.rest_s is None
    for _ in range(4):  # one after 0.4 s each
        timer.start()
        assert timer.rest_s is None
        timer.stop()
        timer.rest()
        asked.now += 0.4
    assert asked.events == ["10 s", "10 s"]
    assert timer.rest_s == pytest.approx(0.6)
    timer.rest()
    assert asked.events[2:] == []
    asked.now += 0.6
    assert timer.rest_s == pytest.approx(0.0, abs=1e-9)
    asked.now += 0.1
    timer.rest()
    assert asked.events[2:] == ["over"]
    assert timer.rest_s is None


def test_the_time_counts_from_when_a_forward_began(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Faulthandler(monkeypatch)
    timer = Timer(9.0)
    timer.start(asked.now)
    asked.now += 5.0
    timer.start(asked.now - 5.0)  # another one was done: what was set holds
    assert asked.events == ["10 s"]
    timer.start(asked.now - 2.0)  # the next oldest has seven seconds left, and may be a second late
    assert asked.events[1:] == ["8 s"]
    asked.now += 30.0
    timer.start(asked.now - 15.0)
    assert asked.events[2:] == ["1 s"]


def test_a_scheduler_that_has_nothing_to_do_takes_the_timer_off(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Faulthandler(monkeypatch)
    scheduler = Scheduler(LoadedModels.of(KnownRuntime()), timeout_s=9.0)
    assert scheduler.wait_s is None
    answers: list[Answer] = []
    (task,) = tasks(1)
    scheduler.submit(Request("owner", 1, 0, task, deadline=math.inf, reply=answers.append))
    scheduler.step()
    assert [answer.status for answer in answers] == [Status.OK]
    assert asked.events == ["10 s"]
    assert scheduler.wait_s == pytest.approx(1.0)
    asked.now += 1.1
    assert scheduler.wait_s == 0.0
    scheduler.step()
    assert asked.events == ["10 s", "over"]
    assert scheduler.wait_s is None


def test_without_a_limit_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Faulthandler(monkeypatch)
    timer = Timer(None)
    timer.start()
    timer.stop()
    timer.rest()
    assert timer.rest_s is None
    assert asked.events == []
