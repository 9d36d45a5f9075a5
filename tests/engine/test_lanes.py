"""The scheduler with a model that computes batches side by side."""

from __future__ import annotations

import asyncio
import gc
import math
import select
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from iei.engine import lanes
from iei.engine.answers import Answer, Status
from iei.engine.batcher import Job
from iei.engine.execute import Outcome, Task
from iei.engine.inprocess import InProcessEngine
from iei.engine.lanes import Lanes
from iei.engine.loaded_models import LoadedModels
from iei.engine.scheduler import Request, Scheduler
from iei.engine.watchdog import Timer
from iei.models.catalog import LoadRequest
from iei.models.spec import Modality
from iei.runtimes.api import MAX_TOKENS, DeviceLost, Input, Outputs
from tests.engine.runtimes_for_tests import SPEC, ParallelRuntime, picture, shapes
from tests.engine.test_execute import CULPRIT, fails_on_the_culprit
from tests.engine.test_in_flight import Clock
from tests.engine.test_scheduler import Asker, exchange, run_all
from tests.engine.test_watchdog import Faulthandler
from tests.engine.waiting import waited
from tests.load_requests import load_request


def _scheduler(model: ParallelRuntime, timeout_s: float | None = None) -> tuple[Scheduler, Asker]:
    scheduler = Scheduler(LoadedModels.of(model), timeout_s=timeout_s)
    return scheduler, Asker(scheduler)


def _begin_all(scheduler: Scheduler) -> None:
    """Takes steps until there is nothing to do before a batch is done."""
    while scheduler.wait_s == 0 and not scheduler._lanes.is_full:
        scheduler.step()


def _until_landed(scheduler: Scheduler) -> None:
    assert select.select([scheduler.landed], [], [], 60)[0]


def _one_lane_in_use(lanes: int) -> tuple[ParallelRuntime, Scheduler, Asker]:
    """That of 0; each of the others has been."""
    model = ParallelRuntime(lanes)
    scheduler, asker = _scheduler(model)
    for value in range(lanes):
        asker.ask(value)
    _begin_all(scheduler)
    model.release(*range(1, lanes))
    while len(asker.answers) < lanes - 1:
        scheduler.step()
    assert asker.statuses == dict.fromkeys(range(1, lanes), Status.OK)
    assert waited(lambda: len(model.events) == lanes)
    return model, scheduler, asker


def test_a_crowd_is_divided_among_the_lanes_and_each_is_answered_when_it_is_done() -> None:
    model = ParallelRuntime()
    scheduler, asker = _scheduler(model)
    for value in range(7):
        asker.ask(value)
    _begin_all(scheduler)
    assert asker.started == [0, 1, 2, 3]  # two lanes share the four inputs that a batch may have
    assert sorted(waited(lambda: model.events[1:] and model.events)) == ["lane 0,1", "lane 2,3"]
    model.release(2)
    scheduler.step()
    assert asker.statuses == {2: Status.OK, 3: Status.OK}
    scheduler.step()
    assert asker.started == [0, 1, 2, 3, 4, 5]
    assert waited(lambda: model.events[2:]) == ["lane 4,5"]
    model.release_all()
    run_all(scheduler)
    assert len(asker.answers) == 7
    for value, answer in asker.answers:
        assert isinstance(answer.content, dict)
        np.testing.assert_array_equal(answer.content["mean"], [value] * 3)
        assert answer.forward.batch_size == (1 if value == 6 else 2)


def test_few_inputs_are_divided_evenly() -> None:
    model = ParallelRuntime()
    scheduler, asker = _scheduler(model)
    for value in range(3):
        asker.ask(value)
    _begin_all(scheduler)
    assert scheduler.wait_s == 0  # both lanes are in use: what arrives waits for one of them
    model.release_all()
    run_all(scheduler)
    assert sorted(model.events) == ["lane 0,1", "lane 2"]


def test_a_lone_input_has_all_cores() -> None:
    model = ParallelRuntime()
    scheduler, asker = _scheduler(model)
    asker.ask(1)
    run_all(scheduler)
    assert model.events == ["run 1"]
    assert asker.statuses == {1: Status.OK}


def test_a_lane_that_is_free_takes_what_arrives_while_the_other_computes() -> None:
    model, scheduler, asker = _one_lane_in_use(2)
    assert scheduler.wait_s is None  # for what arrives, or for the other to be done
    asker.ask(3)
    assert scheduler.wait_s == 0
    scheduler.step()
    assert asker.started == [0, 1, 3]
    model.release_all()
    run_all(scheduler)


def test_what_would_leave_lanes_idle_waits_for_all_cores() -> None:
    model, scheduler, asker = _one_lane_in_use(4)
    scheduler._lanes.last_s = 60.0
    asker.ask(5)
    asker.ask(6)
    assert 50 < (scheduler.wait_s or 0) <= 60
    scheduler.step()
    assert asker.started == [0, 1, 2, 3]
    model.release(0)
    _until_landed(scheduler)
    run_all(scheduler)
    assert model.events[-1] == "run 5,6"


def test_nothing_waits_long_for_a_lane_that_takes_longer_than_others() -> None:
    model, scheduler, asker = _one_lane_in_use(4)
    scheduler._lanes.last_s = 0.0
    asker.ask(5)
    asker.ask(6)
    _begin_all(scheduler)
    assert asker.started == [0, 1, 2, 3, 5, 6]
    model.release_all()
    run_all(scheduler)
    assert sorted(model.events[-2:]) == ["lane 5", "lane 6"]


class TextRuntime(ParallelRuntime):
    """Takes texts, too. `batches` has the sizes of what was computed, and `events` where."""

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        return self._computed("run", batch)

    def run_on_lane(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        return self._computed("lane", batch)

    def _computed(self, where: str, batch: Sequence[Input]) -> list[Outputs]:
        self.events.append(where)
        self.batches.append(len(batch))
        return [{"mean": np.zeros(3, np.float32)} for _ in batch]


@pytest.mark.parametrize("most", ["jobs", "pixels", "tokens"])
def test_what_lanes_can_not_share_is_computed_by_all_cores(most: str) -> None:
    model = TextRuntime(lanes=4)
    model.spec = replace(SPEC, max_batch=3 if most == "jobs" else 4)
    scheduler = Scheduler(LoadedModels.of(model))
    answers: list[Answer] = []
    picture = np.zeros((9, 8, 3) if most == "pixels" else (8, 8, 3), np.uint8)
    task = Task("image", picture, ("mean",))
    if most == "tokens":
        task = Task("text", np.zeros(MAX_TOKENS // 4 + 1, np.int32), ("mean",))
    for number in range(8):
        scheduler.submit(Request("owner", number, 0, task, math.inf, answers.append))
    run_all(scheduler)
    assert len(answers) == 8
    assert set(model.events) == {"run"}
    assert model.batches[:2] == [3, 3]


def test_lanes_share_what_a_batch_may_have_of_tokens() -> None:
    model = TextRuntime(lanes=2)
    model.spec = replace(SPEC, max_batch=64)
    scheduler = Scheduler(LoadedModels.of(model))
    answers: list[Answer] = []
    task = Task("text", np.zeros(MAX_TOKENS // 4, np.int32), ("mean",))
    for number in range(8):
        scheduler.submit(Request("owner", number, 0, task, math.inf, answers.append))
    run_all(scheduler)
    assert len(answers) == 8
    assert "lane" in model.events
    assert max(model.batches) == 2


def test_while_a_model_waits_to_be_loaded_the_others_have_all_cores() -> None:
    class Loader:
        def fetch(self, request: LoadRequest) -> None:
            """Nothing has to be fetched."""

        def load(self, request: LoadRequest) -> ParallelRuntime:
            return model

    model = ParallelRuntime()
    model.release_all()
    models = LoadedModels([load_request(name, name) for name in "ab"], 2, Loader(), bytearray(2))
    models.load_first(1)
    scheduler = Scheduler(models)
    asker = Asker(scheduler)
    for value in range(1, 5):
        asker.ask(value)
    asker.ask(0, model=1)
    deadline = time.monotonic() + 60
    while not models.next_waits:
        assert time.monotonic() < deadline
        models.collect()
        time.sleep(0.001)
    scheduler.step()
    assert model.events == ["run 1,2,3,4"]


def test_what_was_computed_is_not_kept() -> None:
    model = ParallelRuntime()
    model.release_all()
    scheduler = Scheduler(LoadedModels.of(model))
    replies = [Asker(scheduler), Asker(scheduler)]
    gone = [weakref.ref(asker) for asker in replies]
    for asker in replies:
        asker.ask(1)
    gc.disable()
    try:
        run_all(scheduler)
        assert len(model.events) == 2
        del asker
        replies.clear()
        deadline = time.monotonic() + 60
        while any(ref() for ref in gone):  # a thread may be about to let go
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        gc.enable()


def test_without_threads_batches_are_computed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    model = ParallelRuntime()
    model.release_all()
    scheduler, asker = _scheduler(model)
    for value in range(4):
        asker.ask(value)
    run_all(scheduler)
    assert set(asker.statuses.values()) == {Status.OK}
    assert len(asker.answers) == 4


def test_threads_end_with_their_scheduler_and_are_no_more_than_were_needed() -> None:
    model = ParallelRuntime()
    model.release_all()
    scheduler, asker = _scheduler(model)
    before = set(threading.enumerate())
    for value in range(60):
        asker.ask(value)
    run_all(scheduler)
    lanes = set(threading.enumerate()) - before
    assert 1 <= len(lanes) <= 2
    asker.__dict__.clear()
    del scheduler
    gc.collect()
    for lane in lanes:
        lane.join(60)
        assert not lane.is_alive()


def test_what_is_done_can_be_seen_from_outside() -> None:
    model = ParallelRuntime()
    scheduler, asker = _scheduler(model)
    asker.ask(1)
    asker.ask(2)
    scheduler.step()
    scheduler.step()
    assert not select.select([scheduler.landed], [], [], 0)[0]
    model.release_all()
    for _ in range(2):
        _until_landed(scheduler)
        assert scheduler.wait_s == 0
        scheduler.step()
    assert not select.select([scheduler.landed], [], [], 0)[0]
    assert asker.statuses == {1: Status.OK, 2: Status.OK}


def test_a_suspect_runs_while_nothing_else_does() -> None:
    model, scheduler, asker = _one_lane_in_use(2)
    asker.ask(3, alone=True)
    asker.ask(4)
    assert scheduler.wait_s is None
    model.release(0)
    _until_landed(scheduler)
    run_all(scheduler)
    assert model.events[2:] == ["run 3", "run 4"]


def test_a_batch_that_fails_is_halved_on_its_lane() -> None:
    model = ParallelRuntime(before=fails_on_the_culprit)
    model.release_all()
    scheduler, asker = _scheduler(model)
    for value in (1, CULPRIT, 2, 3):
        asker.ask(value)
    run_all(scheduler)
    assert asker.statuses == {1: Status.OK, CULPRIT: Status.FAILED, 2: Status.OK, 3: Status.OK}
    assert {"lane 1,66", "lane 1", "lane 66"} <= set(model.events)
    assert not any(event.startswith("run") for event in model.events)


def test_a_lost_device_ends_the_steps() -> None:
    def lose(batch: Sequence[Input]) -> None:
        raise DeviceLost("the context is gone")

    model = ParallelRuntime(before=lose)
    model.release_all()
    scheduler, asker = _scheduler(model)
    asker.ask(1)
    asker.ask(2)
    with pytest.raises(DeviceLost):
        run_all(scheduler)
    assert not asker.answers


def test_an_owner_that_is_gone_is_not_answered() -> None:
    model = ParallelRuntime()
    scheduler, asker = _scheduler(model)
    gone = Asker(scheduler)
    asker.ask(1)
    gone.ask(2)
    _begin_all(scheduler)
    gone.ask(3)
    scheduler.forget(gone)
    model.release_all()
    scheduler.drain()
    assert asker.statuses == {1: Status.OK}
    assert not gone.answers
    assert not scheduler.busy


def test_what_is_computed_can_not_be_cancelled_and_has_one_answer() -> None:
    model = ParallelRuntime()
    scheduler, asker = _scheduler(model)
    for value in (1, 2, 3, 4, 5):
        asker.ask(value)
    asker.ask(6, lasts_s=-1)
    _begin_all(scheduler)
    scheduler.cancel(asker, 1)
    scheduler.cancel(asker, 5)
    model.release_all()
    run_all(scheduler)
    assert asker.statuses == dict.fromkeys((1, 2, 3, 4), Status.OK) | {5: Status.CANCELLED, 6: Status.EXPIRED}


def test_a_model_is_loaded_in_the_place_of_another_only_when_no_lane_is_in_use() -> None:
    loaded: list[ParallelRuntime] = []
    computing: list[int] = []

    def load() -> ParallelRuntime:
        computing.extend(model.computing for model in loaded)
        loaded.append(ParallelRuntime())
        loaded[-1].release_all()
        return loaded[-1]

    exchange(load)
    assert len(loaded) > 1
    assert not any(computing)


def test_a_lane_that_hangs_ends_the_process_though_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Faulthandler(monkeypatch)
    monkeypatch.setattr(lanes, "time", SimpleNamespace(monotonic=lambda: asked.now))
    model = ParallelRuntime()
    scheduler, asker = _scheduler(model, timeout_s=9.0)
    asker.ask(1)
    asker.ask(2)
    _begin_all(scheduler)
    for value in (2, 3, 4, 5):
        asked.now += 2.0
        model.release(value)
        scheduler.step()
        asker.ask(value + 1)
        _begin_all(scheduler)
    assert asked.events == ["10 s"]  # since the first began, which is not done
    model.release_all()
    run_all(scheduler)
    asked.now += 2.0
    scheduler.step()
    assert asked.events[-1] == "over"


def test_each_of_several_batches_has_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(lanes, "time", clock)
    batches: Lanes[str] = Lanes(Timer(None))
    go = {name: threading.Event() for name in "ab"}

    def begin(name: str) -> None:
        def compute() -> list[Outcome]:
            assert go[name].wait(60)
            return []

        batches.begin([Job("owner", 0, "pictures", 0.0, payload=name)], compute, SPEC, 2)

    begin("a")
    clock.now += 1.0
    begin("b")
    clock.now += 2.0
    go["b"].set()
    second = batches.finish()
    clock.now += 4.0
    go["a"].set()
    first = batches.finish()
    assert (second.jobs[0].payload, second.seconds, second.device_s) == ("b", 2.0, 1.0)
    assert (first.jobs[0].payload, first.seconds, first.device_s) == ("a", 7.0, 6.0)
    clock.now += 50.0  # in which nothing is computed
    begin("a")
    clock.now += 1.0
    assert batches.finish().device_s == 1.0


def test_an_engine_in_this_process_answers_what_lanes_compute() -> None:
    model = ParallelRuntime()
    model.release_all()

    async def ask() -> list[float]:
        engine = InProcessEngine(model)
        await engine.start()
        try:
            results = await asyncio.gather(
                *(
                    engine.run(SPEC, "image", picture(value), shapes("mean"), deadline=time.monotonic() + 60)
                    for value in range(40)
                )
            )
        finally:
            await engine.stop()
        return [float(result.outputs["mean"][0]) for result in results]

    assert asyncio.run(ask()) == list(range(40))
    assert any(event.startswith("lane") for event in model.events)
