"""The scheduler alone: without sockets, processes and event loops."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from iei.engine.answers import Answer, Status
from iei.engine.execute import Task
from iei.engine.loaded_models import LoadedModels
from iei.engine.scheduler import Request, Scheduler
from iei.models.catalog import LoadRequest
from iei.priority import Priority
from iei.runtimes.api import DeviceLost
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime, picture
from tests.load_requests import load_request


class Loader:
    """Loads a `KnownRuntime` whatever is asked for."""

    def fetch(self, request: LoadRequest) -> None:
        """Nothing has to be fetched."""

    def load(self, request: LoadRequest) -> KnownRuntime:
        """A new one."""
        return KnownRuntime()


class Asker:
    """Submits pictures under their values as ids, and keeps the answers."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.answers: list[tuple[int, Answer]] = []
        self.started: list[int] = []
        self._scheduler = scheduler

    def ask(
        self,
        value: int,
        *,
        model: int = 0,
        lasts_s: float = 60.0,
        alone: bool = False,
        priority: Priority = Priority.INTERACTIVE,
    ) -> None:
        """Submits the picture of this value."""
        self._scheduler.submit(
            Request(
                owner=self,
                id=value,
                model=model,
                task=Task("image", picture(value), ("mean",)),
                deadline=time.monotonic() + lasts_s,
                reply=lambda answer: self.answers.append((value, answer)),
                starts=partial(self.started.append, value),
                alone=alone,
                priority=priority,
            )
        )

    @property
    def statuses(self) -> dict[int, Status]:
        """What became of each picture."""
        assert len({value for value, _ in self.answers}) == len(self.answers)  # one answer each
        return {value: answer.status for value, answer in self.answers}


def run_all(scheduler: Scheduler) -> None:
    while scheduler.busy:
        scheduler.step()


def exchange(load: Callable[[], KnownRuntime]) -> None:
    """Asks for one of two models of which one fits into memory, while the other has requests all the time."""

    class Exchanger(Loader):
        def load(self, request: LoadRequest) -> KnownRuntime:
            return load()

    models = LoadedModels([load_request(name, name) for name in "ab"], 1, Exchanger(), bytearray(2))
    models.load_first(1)
    scheduler = Scheduler(models)
    asker = Asker(scheduler)
    asker.ask(0, model=1)
    deadline = time.monotonic() + 60
    value = 0
    while 0 not in asker.statuses:
        assert time.monotonic() < deadline
        if value < 200:
            value += 1
            asker.ask(value)
        wakeups = [scheduler.wakeup, scheduler.landed]
        if scheduler.wakeup in select.select(wakeups, [], [], 0 if scheduler.busy else 20)[0]:
            scheduler.models_arrived()
        scheduler.step()
    run_all(scheduler)
    assert set(asker.statuses.values()) == {Status.OK}


def test_every_request_is_answered_once() -> None:
    scheduler = Scheduler(LoadedModels.of(KnownRuntime()))
    asker = Asker(scheduler)
    for value in range(3):
        asker.ask(value)
    asker.ask(3, lasts_s=-1)
    scheduler.cancel(asker, 1)
    run_all(scheduler)
    assert asker.statuses == {0: Status.OK, 1: Status.CANCELLED, 2: Status.OK, 3: Status.EXPIRED}
    assert asker.started == [0, 2]
    for value, answer in asker.answers:
        if answer.status == Status.OK:
            assert isinstance(answer.content, dict)
            np.testing.assert_array_equal(answer.content["mean"], [value] * 3)


def test_a_forgotten_owner_is_not_answered() -> None:
    scheduler = Scheduler(LoadedModels.of(KnownRuntime()))
    gone, other = Asker(scheduler), Asker(scheduler)
    gone.ask(1)
    other.ask(1)
    scheduler.forget(gone)
    run_all(scheduler)
    assert not gone.answers
    assert other.statuses == {1: Status.OK}


def test_requests_for_a_cold_model_wait_for_it_and_can_be_cancelled() -> None:
    models = LoadedModels([load_request(name, name) for name in "ab"], 1, Loader(), bytearray(2))
    models.load_first(1)
    scheduler = Scheduler(models)
    asker, gone = Asker(scheduler), Asker(scheduler)
    for value in (1, 2):
        asker.ask(value, model=1)
    gone.ask(1, model=1)
    scheduler.cancel(asker, 1)
    scheduler.forget(gone)
    assert asker.statuses == {1: Status.CANCELLED}
    while len(asker.answers) < 2:
        assert scheduler.busy or select.select([scheduler.wakeup], [], [], 20)[0]
        if not scheduler.busy:
            scheduler.models_arrived()
        scheduler.step()
    assert asker.statuses == {1: Status.CANCELLED, 2: Status.OK}
    assert not gone.answers


def test_priorities_hold_for_what_has_waited_for_its_model() -> None:
    models = LoadedModels([load_request(name, name) for name in "ab"], 1, Loader(), bytearray(2))
    models.load_first(1)
    scheduler = Scheduler(models)
    asker = Asker(scheduler)
    for value in range(1, 9):
        asker.ask(value, model=1, priority=Priority.BULK)
    asker.ask(9, model=1)
    while len(asker.answers) < 9:
        assert scheduler.busy or select.select([scheduler.wakeup], [], [], 20)[0]
        if not scheduler.busy:
            scheduler.models_arrived()
        scheduler.step()
    assert asker.started == [9, *range(1, 9)]


def test_a_model_that_is_not_in_the_catalog_is_refused() -> None:
    scheduler = Scheduler(LoadedModels.of(KnownRuntime()))
    with pytest.raises(ValueError, match="no model 1"):
        Asker(scheduler).ask(1, model=1)


def test_the_description_of_a_model_needs_no_step() -> None:
    answers: list[Answer] = []
    scheduler = Scheduler(LoadedModels.of(KnownRuntime()))
    scheduler.submit(Request("me", 1, 0, None, deadline=0.0, reply=answers.append))
    assert answers == [Answer(Status.OK, SPEC)]


def test_a_lost_device_leaves_the_batch_unanswered() -> None:
    def lose(batch: object) -> None:
        raise DeviceLost("the context is gone")

    scheduler = Scheduler(LoadedModels.of(KnownRuntime(lose)))
    asker = Asker(scheduler)
    asker.ask(1)
    with pytest.raises(DeviceLost):
        scheduler.step()
    assert not asker.answers
