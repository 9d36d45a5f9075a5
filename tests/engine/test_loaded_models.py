"""Which models are in memory, with a loader that does as it is told."""

from __future__ import annotations

import gc
import math
import select
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import pytest

from iei.engine.loaded_models import MOST_DEATHS, LoadedModels
from iei.errors import StartupError
from iei.models.catalog import LoadRequest
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime
from tests.load_requests import load_request

REQUESTS = [load_request(name, name) for name in "abcd"]
A, B, C, D = range(4)


class ToldLoader:
    """Loads whatever it is asked for, once its event is set; counts what is in memory."""

    def __init__(self) -> None:
        self.may_fetch: defaultdict[str, threading.Event] = defaultdict(set_event)
        self.may_load: defaultdict[str, threading.Event] = defaultdict(set_event)
        self.load_began: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self.broken: set[str] = set()
        self.fetched: list[LoadRequest] = []
        self.loads: list[LoadRequest] = []
        self.alive: weakref.WeakSet[KnownRuntime] = weakref.WeakSet()
        self.most_alive = 0

    def fetch(self, request: LoadRequest) -> None:
        self.may_fetch[request.entry.name].wait()
        self.fetched.append(request)

    def load(self, request: LoadRequest) -> KnownRuntime:
        self.loads.append(request)
        self.load_began[request.entry.name].set()
        self.may_load[request.entry.name].wait()
        if request.entry.name in self.broken:
            raise StartupError("/srv/secret is broken.")
        model = KnownRuntime()
        model.spec = replace(SPEC, name=request.entry.name)
        self.alive.add(model)
        self.most_alive = max(self.most_alive, len(self.alive))
        return model


def set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def loader() -> Iterator[ToldLoader]:
    loader = ToldLoader()
    yield loader
    for event in (*loader.may_fetch.values(), *loader.may_load.values()):
        event.set()


@pytest.fixture(autouse=True)
def no_cycles() -> Iterator[None]:
    """Memory has to come back without the garbage collector, which comes when it likes."""
    gc.disable()
    yield
    gc.enable()


def models(
    loader: ToldLoader, max_loaded: int = 1, deaths: bytearray | None = None, *, restarted: bool = False
) -> LoadedModels:
    return LoadedModels(REQUESTS, max_loaded, loader, deaths or bytearray(len(REQUESTS)), restarted=restarted)


def wait(models: LoadedModels, oldest: float = math.inf) -> list[int]:
    """As the engine does: sleeps until woken, collects, loads next."""
    readable, _, _ = select.select([models.wakeup], [], [], 20)
    assert readable
    ended = models.collect()
    models.load_next(oldest)
    return ended


def wait_for(models: LoadedModels, index: int) -> None:
    while index not in wait(models):
        pass


def loaded(models: LoadedModels) -> set[int]:
    return set(models._loaded)


def test_a_model_makes_room_before_the_next_is_loaded(loader: ToldLoader) -> None:
    them = models(loader)
    them.load_first(1)
    for index in (B, C, A):
        assert them.get(index) is None
        assert them.request(index)
        wait_for(them, index)
        assert loaded(them) == {index}
    assert loader.most_alive == 1


def test_a_model_serves_until_the_next_has_been_fetched(loader: ToldLoader) -> None:
    loader.may_fetch["b"].clear()
    loader.may_load["b"].clear()
    them = models(loader)
    them.load_first(1)
    them.request(B)
    assert them.get(A)
    loader.may_fetch["b"].set()
    assert wait(them) == []  # fetched: the load has begun
    assert not them.get(A)
    loader.may_load["b"].set()
    assert wait(them) == [B]
    assert them.get(B)


def test_the_least_recently_used_one_goes(loader: ToldLoader) -> None:
    them = models(loader, max_loaded=2)
    them.load_first(2)
    them.get(A)
    them.request(C)
    wait_for(them, C)
    assert loaded(them) == {A, C}


def test_weights_are_loaded_one_after_the_other_and_asked_for_once(loader: ToldLoader) -> None:
    loader.may_load["b"].clear()
    them = models(loader, max_loaded=4)
    them.load_first(1)
    them.request(B)
    wait(them)
    assert loader.load_began["b"].wait(20)
    for _ in range(3):
        them.request(B)
        them.request(C)
    wait(them)
    assert [request.entry.name for request in loader.loads] == ["a", "b"]
    loader.may_load["b"].set()
    wait_for(them, C)
    assert [request.entry.name for request in loader.loads] == ["a", "b", "c"]


def test_a_download_that_hangs_holds_up_no_other_model(loader: ToldLoader) -> None:
    loader.may_fetch["b"].clear()
    them = models(loader)
    them.load_first(1)
    them.request(B)
    them.request(C)
    wait_for(them, C)
    assert loaded(them) == {C}


def test_models_that_push_each_other_out_have_their_jobs_run_first(loader: ToldLoader) -> None:
    them = models(loader)
    them.load_first(1)
    them.request(B)
    wait_for(them, B)
    them.request(C)
    assert wait(them, oldest=0.0) == []  # a job of B waits
    assert loaded(them) == {B}
    them.load_next(oldest=0.0)
    assert loaded(them) == {B}
    them.load_next(oldest=math.inf)
    assert loaded(them) == set()
    wait_for(them, C)


def test_a_failure_is_logged_once_and_remembered(loader: ToldLoader, caplog: pytest.LogCaptureFixture) -> None:
    loader.broken.add("b")
    them = models(loader, max_loaded=2)
    them.load_first(1)
    assert them.request(B)
    wait_for(them, B)
    assert not them.get(B)
    assert not them.request(B)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "b can't be loaded: /srv/secret is broken.")
    ]
    assert them.request(C)


def test_a_machine_without_threads_loads_nothing_and_goes_on(
    loader: ToldLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    them = models(loader)
    them.load_first(1)
    monkeypatch.setattr(threading.Thread, "start", no_more)
    them.request(B)
    assert wait(them) == [B]
    assert loaded(them) == {A}


def test_a_model_is_tried_again_later(loader: ToldLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iei.engine.loaded_models.RETRY_AFTER_S", 0.0)
    loader.broken.add("b")
    them = models(loader, max_loaded=2)
    them.load_first(1)
    them.request(B)
    wait_for(them, B)
    loader.broken.clear()
    assert them.request(B)
    wait_for(them, B)
    assert them.get(B)


def test_what_is_being_loaded_is_known_to_the_next_engine(loader: ToldLoader) -> None:
    deaths = bytearray(len(REQUESTS))
    loader.may_load["b"].clear()
    them = models(loader, 2, deaths)
    them.load_first(1)
    them.request(B)
    wait(them)
    assert loader.load_began["b"].wait(20)
    assert deaths == bytes([0, 1, 0, 0])
    loader.may_load["b"].set()
    wait_for(them, B)
    assert deaths == bytes(4)


def test_a_model_that_an_engine_died_of_is_refused_for_longer_each_time(
    loader: ToldLoader, caplog: pytest.LogCaptureFixture
) -> None:
    deaths = bytearray([0, 1, 2, MOST_DEATHS])
    them = models(loader, 2, deaths)
    assert [them.request(index) for index in (B, C, D)] == [False] * 3
    assert "died while it loaded b, which is not tried again for 60 s" in caplog.text
    assert "died while it loaded c, which is not tried again for 120 s" in caplog.text
    assert "died while it loaded d, which is not tried again for 3840 s" in caplog.text
    assert loader.loads == []


def test_only_what_has_been_loaded_before_prefers_the_cache(loader: ToldLoader) -> None:
    them = models(loader)
    them.load_first(1)
    assert not loader.loads[0].prefer_cache
    for index in (B, A):
        them.request(index)
        wait_for(them, index)
    assert [request.prefer_cache for request in loader.fetched] == [False, True]
    assert all(request.prefer_cache for request in loader.loads[1:])  # they have just been fetched


def test_a_restarted_engine_prefers_the_cache(loader: ToldLoader) -> None:
    them = models(loader, restarted=True)
    them.load_first(1)
    them.request(B)
    wait_for(them, B)
    assert all(request.prefer_cache for request in loader.fetched + loader.loads)
