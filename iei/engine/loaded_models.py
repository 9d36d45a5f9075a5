"""The models in an engine's memory: fetched and loaded on demand, the least recently used one evicted.

A model that is asked for is first fetched, in a thread of its own: a download may take minutes but little memory. Then
it is loaded, one model at a time, after another has been evicted if needed. Meanwhile, the loaded models serve.
"""

from __future__ import annotations

import logging
import mmap
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from iei.engine.wakeup import Wakeup
from iei.errors import StartupError
from iei.load_options import LoadOptions
from iei.models.catalog import CatalogEntry, LoadRequest
from iei.models.spec import ModelSpec
from iei.runtimes.api import Model

log = logging.getLogger("iei.engine")

RETRY_AFTER_S = 30.0
"""How long a model that could not be loaded is not tried again; doubled for each engine that died while loading it."""
MOST_DEATHS = 7
"""More deaths of engines are not counted."""


class Loader(Protocol):
    """Where models come from. Both methods are called in threads and raise StartupError with what to do about it."""

    def fetch(self, request: LoadRequest) -> None:
        """Brings the model's files onto this machine."""

    def load(self, request: LoadRequest) -> Model:
        """The model, ready to run."""
        ...


class Preloaded:
    """A loader for a model that is in memory already."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def fetch(self, request: LoadRequest) -> None:
        """Nothing has to be fetched."""

    def load(self, request: LoadRequest) -> Model:
        """The model."""
        return self._model


class LoadedModels:
    """Which models are in memory, and which are on their way.

    All public methods are for one thread, the engine's. The threads that fetch and load only append to deques and write
    to the pipe that wakes the engine.
    """

    def __init__(
        self,
        requests: Sequence[LoadRequest],
        max_loaded: int,
        loader: Loader,
        deaths: mmap.mmap | bytearray,
        *,
        restarted: bool = False,
    ) -> None:
        """Loads nothing yet.

        Args:
            requests: the models, in the catalog's order, by which place they are named here.
            max_loaded: most models in memory, with the one that is being loaded.
            loader: where they come from.
            deaths: a byte for each model, in memory that outlives the engine: how many engines died while they loaded
                it. A model that takes all memory must not end one engine after the other.
            restarted: whether this is not the first engine; weights then stay the ones that earlier engines had.
        """
        self.names = tuple(request.entry.name for request in requests)
        self._requests = requests
        self._max_loaded = max_loaded
        self._loader = loader
        self._deaths = deaths
        self._known = set(range(len(requests))) if restarted else set()
        """Models that were loaded before: their weights stay the same, as an index must not mix two models."""
        self._loaded: OrderedDict[int, Model] = OrderedDict()
        self._on_the_way: set[int] = set()
        self._fetched: deque[int] = deque()
        self._next_since: float | None = None
        self._loading: int | None = None
        self._ended: deque[tuple[int, Model | None]] = deque()
        self._retry_at: dict[int, float] = {}
        self._wakeup = Wakeup()
        self._first: ModelSpec | None = None
        self._remember_deaths()

    @classmethod
    def of(cls, model: Model) -> LoadedModels:
        """Just `model`, which is loaded already and stays so."""
        spec = model.spec
        request = LoadRequest(CatalogEntry(spec.name, spec.id, spec.revision), spec.device, LoadOptions())
        models = cls([request], 1, Preloaded(model), bytearray(1))
        models._loaded[0], models._first = model, spec
        return models

    @property
    def default(self) -> ModelSpec:
        """The first model, after `load_first`; known even when it has been evicted."""
        assert self._first is not None
        return self._first

    @property
    def loaded(self) -> list[ModelSpec]:
        """What is in memory."""
        return [model.spec for model in self._loaded.values()]

    def load_first(self, count: int) -> ModelSpec:
        """Loads the first `count` models, in this thread; returns the description of the very first.

        Raises:
            StartupError: one of them can't be loaded; the message says why.
        """
        for index in range(min(count, len(self._requests))):
            self._loaded[index] = self._timed_load(index, prefer_cache=index in self._known)
        self._known.update(self._loaded)
        self._first = self._loaded[0].spec
        return self._first

    def get(self, index: int) -> Model | None:
        """The model, if it is loaded; marks it as the most recently used one."""
        model = self._loaded.get(index)
        if model:
            self._loaded.move_to_end(index)
        return model

    def request(self, index: int) -> bool:
        """Starts to fetch a model that is not loaded, unless it is on its way already.

        Returns:
            Whether `collect` will return it. False: it could not be loaded a short while ago, so that another attempt
            would most likely fail, too.
        """
        if time.monotonic() < self._retry_at.get(index, 0.0):
            return False
        if index not in self._on_the_way:
            self._on_the_way.add(index)
            self._start(self._fetch, index)
        return True

    def collect(self) -> list[int]:
        """Models that are no longer on their way: they are loaded, or have failed and are refused for a while."""
        self._wakeup.take(1024)
        ended = [self._ended.popleft() for _ in range(len(self._ended))]
        for index, model in ended:
            self._on_the_way.remove(index)
            if index == self._loading:
                self._loading = None
            if model:
                self._loaded[index] = model
                self._known.add(index)
            else:
                self._retry_at[index] = time.monotonic() + RETRY_AFTER_S
        return [index for index, _ in ended]

    @property
    def wakeup(self) -> int:
        """A file descriptor, readable when there is something to collect, or to load next."""
        return self._wakeup.fd

    @property
    def next_waits(self) -> bool:
        """Whether a model has been fetched that `load_next` may load, for which it may evict another."""
        return self._loading is None and bool(self._fetched)

    def load_next(self, oldest: float) -> None:
        """Starts to load a model that has been fetched, if no other is being loaded. To be called after every batch.

        No batch may be in flight: its model might be the one to evict.

        Jobs that came before it run first: models that evicted each other at once would never run a job.

        Args:
            oldest: `time.monotonic()` when the oldest waiting job was added; infinity if none waits.
        """
        if not self.next_waits:
            return
        self._next_since = self._next_since or time.monotonic()
        if oldest <= self._next_since:
            return
        self._next_since, self._loading = None, self._fetched.popleft()
        while len(self._loaded) >= self._max_loaded:
            evicted = next(iter(self._loaded))
            del self._loaded[evicted]  # first: the memory of both may be more than there is
            log.info("%s is evicted for %s", self.names[evicted], self.names[self._loading])
        self._start(self._load, self._loading)

    def _start(self, work: Callable[[int], None], index: int) -> None:
        name = self.names[index]

        def attempt() -> None:
            try:
                work(index)
            except StartupError as error:
                log.error("%s can't be loaded: %s", name, error)
                self._failed(index)
            except Exception:
                log.exception("loading %s failed", name)
                self._failed(index)

        try:
            threading.Thread(target=attempt, name=f"loader of {name}", daemon=True).start()
        except RuntimeError as error:  # the machine has no thread left
            log.error("%s can't be loaded: %s", name, error)
            self._failed(index)

    def _fetch(self, index: int) -> None:
        self._loader.fetch(replace(self._requests[index], prefer_cache=index in self._known))
        self._fetched.append(index)
        self._wakeup.put()

    def _load(self, index: int) -> None:
        self._deaths[index] = min(self._deaths[index] + 1, MOST_DEATHS)
        try:
            # It has just been fetched. Without a name here, which it would have until this thread has ended.
            self._ended.append((index, self._timed_load(index, prefer_cache=True)))
        finally:
            self._deaths[index] = 0  # skipped only if the process dies
        self._wakeup.put()

    def _failed(self, index: int) -> None:
        self._ended.append((index, None))
        self._wakeup.put()

    def _timed_load(self, index: int, *, prefer_cache: bool) -> Model:
        request = replace(self._requests[index], prefer_cache=prefer_cache)
        started = time.monotonic()
        model = self._loader.load(request)
        spec = model.spec
        log.info(
            "%s is loaded: %s, %s, %.1f s", request.entry.name, spec.device, spec.dtype, time.monotonic() - started
        )
        return model

    def _remember_deaths(self) -> None:
        for index, deaths in enumerate(self._deaths[:]):
            if deaths:
                wait_s = RETRY_AFTER_S * 2**deaths
                self._retry_at[index] = time.monotonic() + wait_s
                log.error(
                    "an engine died while it loaded %s, which is not tried again for %.0f s",
                    self.names[index],
                    wait_s,
                )
