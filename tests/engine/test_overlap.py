"""The scheduler with a model that is brought a batch while it computes another."""

from __future__ import annotations

import numpy as np
import pytest

from iei.engine import in_flight
from iei.engine import scheduler as scheduling
from iei.engine.answers import Status
from iei.engine.in_flight import LOOK_S
from iei.engine.loaded_models import LoadedModels
from iei.engine.scheduler import Scheduler
from iei.priority import Priority
from iei.runtimes.api import DeviceLost, Input
from tests.engine import test_scheduler
from tests.engine.runtimes_for_tests import OverlappingRuntime
from tests.engine.test_execute import CULPRIT, fails_on_the_culprit
from tests.engine.test_in_flight import Clock
from tests.engine.test_scheduler import Asker, exchange, run_all


def _scheduler(model: OverlappingRuntime) -> tuple[Scheduler, Asker]:
    scheduler = Scheduler(LoadedModels.of(model))
    return scheduler, Asker(scheduler)


def test_a_batch_is_begun_before_the_one_before_it_is_finished() -> None:
    model = OverlappingRuntime()
    scheduler, asker = _scheduler(model)
    for value in range(10):
        asker.ask(value)
    run_all(scheduler)
    assert model.events == [
        "begin 0,1,2,3",
        "begin 4,5,6,7",
        "finish 0,1,2,3",
        "begin 8,9",
        "finish 4,5,6,7",
        "finish 8,9",
    ]
    assert [value for value, _ in asker.answers] == asker.started == list(range(10))
    for value, answer in asker.answers:
        assert answer.status == Status.OK
        assert isinstance(answer.content, dict)
        np.testing.assert_array_equal(answer.content["mean"], [value] * 3)


def test_a_lone_request_is_answered_by_the_next_step() -> None:
    scheduler, asker = _scheduler(OverlappingRuntime())
    assert scheduler.wait_s is None
    asker.ask(1)
    assert scheduler.wait_s == 0
    scheduler.step()
    assert not asker.answers
    scheduler.step()
    assert asker.statuses == {1: Status.OK}
    assert scheduler.wait_s is None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (in_flight, scheduling, test_scheduler):
        monkeypatch.setattr(module, "time", clock)
    return clock


def _known_to_take_a_second(clock: Clock) -> tuple[OverlappingRuntime, Scheduler, Asker]:
    """A model after a batch of each size, each of which took it a second of `clock`."""

    def second(batch: object) -> None:
        clock.now += 1.0

    model = OverlappingRuntime(second)
    scheduler, asker = _scheduler(model)
    for values in ([200], [201, 202], [203, 204, 205], [206, 207, 208, 209]):
        for value in values:
            asker.ask(value)
        run_all(scheduler)
    model.events.clear()
    asker.answers.clear()
    return model, scheduler, asker


def test_the_second_batch_grows_until_the_first_is_about_to_be_done(clock: Clock) -> None:
    model, scheduler, asker = _known_to_take_a_second(clock)
    asker.ask(1)
    scheduler.step()
    asker.ask(2)
    scheduler.step()
    asker.ask(3)
    assert scheduler.wait_s == LOOK_S
    scheduler.step()
    assert model.events == ["begin 1"]
    clock.now += 0.9995
    assert scheduler.wait_s == 0
    scheduler.step()
    scheduler.step()
    assert model.events == ["begin 1", "begin 2,3", "finish 1"]


def test_a_batch_that_is_done_sooner_than_expected_is_answered_at_once(clock: Clock) -> None:
    model, scheduler, asker = _known_to_take_a_second(clock)
    asker.ask(1)
    scheduler.step()
    asker.ask(2)
    scheduler.step()
    assert model.events == ["begin 1"]
    model.all_done = True
    assert scheduler.wait_s == 0
    scheduler.step()
    assert asker.statuses == {1: Status.OK}
    scheduler.step()
    assert model.events == ["begin 1", "finish 1", "begin 2"]


def test_a_batch_that_cannot_grow_is_begun_at_once(clock: Clock) -> None:
    model, scheduler, asker = _known_to_take_a_second(clock)
    asker.ask(1)
    scheduler.step()
    for value in range(2, 5):
        asker.ask(value)
    assert scheduler.wait_s
    asker.ask(5)
    assert scheduler.wait_s == 0
    scheduler.step()
    assert model.events == ["begin 1", "begin 2,3,4,5"]


def test_bulk_is_not_begun_where_interactive_could_not_overtake_it_any_more(clock: Clock) -> None:
    model, scheduler, asker = _known_to_take_a_second(clock)
    for value in range(1, 9):
        asker.ask(value, priority=Priority.BULK)
    scheduler.step()
    assert scheduler.wait_s
    asker.ask(9)
    clock.now += 1.0
    scheduler.step()
    assert model.events == ["begin 1,2,3,4", "begin 9,5,6,7"]


def test_a_suspect_runs_while_nothing_else_does() -> None:
    model = OverlappingRuntime()
    scheduler, asker = _scheduler(model)
    asker.ask(1)
    scheduler.step()
    asker.ask(2, alone=True)
    asker.ask(3)
    run_all(scheduler)
    assert model.events == ["begin 1", "finish 1", "run 2", "begin 3", "finish 3"]


@pytest.mark.parametrize("at_begin", [True, False], ids=["begun", "finished"])
def test_a_batch_that_fails_is_halved_and_the_one_after_it_is_not(at_begin: bool) -> None:
    model = OverlappingRuntime(fails_on_the_culprit, fails_on_the_culprit if at_begin else lambda batch: None)
    scheduler, asker = _scheduler(model)
    for value in (1, 2, CULPRIT, 3, 4, 5):
        asker.ask(value)
    run_all(scheduler)
    assert asker.statuses == {value: Status.FAILED if value == CULPRIT else Status.OK for value in (1, 2, 66, 3, 4, 5)}
    # What could not even be begun is halved at once.
    assert model.events[:2] == ["begin 1,2,66,3", "run 1,2" if at_begin else "begin 4,5"]
    assert model.events[-1] == "finish 4,5"


@pytest.mark.parametrize("at_begin", [True, False], ids=["begun", "finished"])
def test_a_lost_device_leaves_all_in_flight_unanswered(at_begin: bool) -> None:
    def lose(batch: list[Input]) -> None:
        if batch[0][0, 0, 0] == 1:
            raise DeviceLost("the context is gone")

    model = OverlappingRuntime(at_begin=lose) if at_begin else OverlappingRuntime(lose)  # type: ignore[arg-type]
    scheduler, asker = _scheduler(model)
    for value in (1, 2, 3, 4, 5):
        asker.ask(value)
    with pytest.raises(DeviceLost):
        run_all(scheduler)
    assert not asker.answers


def test_an_owner_that_is_gone_is_not_answered_and_the_others_of_the_batch_are() -> None:
    scheduler, asker = _scheduler(OverlappingRuntime())
    gone = Asker(scheduler)
    asker.ask(1)
    gone.ask(2)
    scheduler.step()
    gone.ask(3)
    scheduler.forget(gone)
    scheduler.drain()
    assert asker.statuses == {1: Status.OK}
    assert not gone.answers
    assert not scheduler.busy


def test_what_is_in_flight_can_not_be_cancelled_and_has_one_answer() -> None:
    scheduler, asker = _scheduler(OverlappingRuntime())
    asker.ask(1)
    scheduler.step()
    asker.ask(2)
    scheduler.cancel(asker, 1)
    scheduler.cancel(asker, 2)
    run_all(scheduler)
    assert asker.statuses == {1: Status.OK, 2: Status.CANCELLED}


def test_what_expires_while_another_batch_is_computed_is_not_run() -> None:
    model = OverlappingRuntime()
    scheduler, asker = _scheduler(model)
    asker.ask(1)
    scheduler.step()
    asker.ask(2, lasts_s=-1)
    run_all(scheduler)
    assert asker.statuses == {1: Status.OK, 2: Status.EXPIRED}
    assert model.events == ["begin 1", "finish 1"]


def test_a_model_is_evicted_only_when_nothing_is_in_flight() -> None:
    loaded: list[OverlappingRuntime] = []
    landed: list[bool] = []

    def load() -> OverlappingRuntime:
        landed.extend(map(_is_landed, loaded))
        loaded.append(OverlappingRuntime())
        return loaded[-1]

    exchange(load)
    assert len(loaded) > 1
    assert all(landed)


def _is_landed(model: OverlappingRuntime) -> bool:
    begun = [event.removeprefix("begin ") for event in model.events if event.startswith("begin")]
    return begun == [event.removeprefix("finish ") for event in model.events if event.startswith("finish")]


def test_waiting_and_computing_do_not_overlap_in_what_is_measured(clock: Clock) -> None:
    model, scheduler, asker = _known_to_take_a_second(clock)
    for value in range(1, 9):
        asker.ask(value)
    scheduler.step()
    scheduler.step()
    scheduler.drain()
    first, second = asker.answers[0][1].forward, asker.answers[4][1].forward
    assert (first.inference_s, second.inference_s) == (1.0, 1.0)
    assert (first.queue_s, second.queue_s) == (0.0, 1.0)
    assert model.events[:2] == ["begin 1,2,3,4", "begin 5,6,7,8"]
