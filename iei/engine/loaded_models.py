"""The models in an engine's memory: fetched and loaded on demand, the least recently used one evicted.

What is asked for is fetched first, each model in a thread of its own: that may take minutes, and no memory to speak of.
Then it is loaded, one at a time, once another has made room for it. Requests for models that are there are served all
the while.
"""

from __future__ import annotations

import logging
import mmap
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from iei.errors import StartupError
from iei.models.spec import LoadRequest, ModelSpec
from iei.runtimes.api import Runtime

log = logging.getLogger("iei.engine")

RETRY_AFTER_S = 30.0
"""A model that could not be loaded is not tried again before; twice as long for each engine that died of loading it."""
MOST_DEATHS = 7
"""More are not counted."""


class Loader(Protocol):
    """Where models come from. Both are called in threads and raise StartupError, one sentence that says what to do."""

    def fetch(self, request: LoadRequest) -> None:
        """Brings the model's files onto this machine."""

    def load(self, request: LoadRequest) -> Runtime: ...


class LoadedModels:
    """Which models are in memory, and which are on their way. All public methods are for one thread, the engine's; the
    threads that fetch and load only append to deques, and wake that one.

    Args:
        max_loaded: most models in memory, with the one that is being loaded.
        deaths: a byte for each model, which outlives the engine: how many of them died while they loaded it. Those who
            ask for a model that takes all memory must not end one engine after the other.
        restarted: not the first engine, so weights stay the ones that earlier engines had.
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
        self._requests = requests
        self._max_loaded = max_loaded
        self._loader = loader
        self._deaths = deaths
        self._known = set(range(len(requests))) if restarted else set()
        """What has been loaded before: its weights must not change, or an index would mix old vectors and new ones."""
        self._loaded: OrderedDict[int, Runtime] = OrderedDict()
        self._on_the_way: set[int] = set()
        self._fetched: deque[int] = deque()
        self._next_since: float | None = None
        self._loading: int | None = None
        self._ended: deque[tuple[int, Runtime | None]] = deque()
        self._retry_at: dict[int, float] = {}
        self.wakeup, self._wake = os.pipe()
        """Readable when there is something to collect, or to load next."""
        self._remember_deaths()

    def load_first(self, count: int) -> ModelSpec:
        """Loads the first `count` models, in this thread, and describes the very first.

        Raises:
            StartupError: one sentence that says why one of them can't be loaded.
        """
        for index in range(min(count, len(self._requests))):
            self._loaded[index] = self._timed_load(index, prefer_cache=index in self._known)
        self._known.update(self._loaded)
        return self._loaded[0].spec

    def get(self, index: int) -> Runtime | None:
        """The model, if it is loaded; from now on the most recently used one."""
        runtime = self._loaded.get(index)
        if runtime:
            self._loaded.move_to_end(index)
        return runtime

    def request(self, index: int) -> bool:
        """Sends for a model that is not loaded, unless it is on its way already.

        Returns:
            Whether `collect` will tell of it. False: it could not be loaded a short while ago, and whatever the reason
            was, it won't have gone so soon.
        """
        if time.monotonic() < self._retry_at.get(index, 0.0):
            return False
        if index not in self._on_the_way:
            self._on_the_way.add(index)
            self._start(self._fetch, index)
        return True

    def collect(self) -> list[int]:
        """Models that are no longer on their way: loaded by now, or failed and, for a while, not to be had."""
        os.read(self.wakeup, 1024)
        ended = [self._ended.popleft() for _ in range(len(self._ended))]
        for index, runtime in ended:
            self._on_the_way.remove(index)
            if index == self._loading:
                self._loading = None
            if runtime:
                self._loaded[index] = runtime
                self._known.add(index)
            else:
                self._retry_at[index] = time.monotonic() + RETRY_AFTER_S
        return [index for index, _ in ended]

    def load_next(self, oldest: float) -> None:
        """Starts to load what has been fetched, if nothing else is being loaded: to be called after every turn.

        Jobs that came before have their turn first. If models took each other's place at once, none would ever run.

        Args:
            oldest: when the oldest waiting job came, in `time.monotonic()`; infinity if none waits.
        """
        if self._loading is not None or not self._fetched:
            return
        self._next_since = self._next_since or time.monotonic()
        if oldest <= self._next_since:
            return
        self._next_since, self._loading = None, self._fetched.popleft()
        while len(self._loaded) >= self._max_loaded:
            evicted = next(iter(self._loaded))
            del self._loaded[evicted]  # first: the memory of both may be more than there is
            log.info("%s makes room for %s", self._requests[evicted].name, self._requests[self._loading].name)
        self._start(self._load, self._loading)

    def _start(self, work: Callable[[int], None], index: int) -> None:
        name = self._requests[index].name

        def attempt() -> None:
            try:
                work(index)
            except StartupError as error:
                log.error("%s can't be loaded: %s", name, error)
                self._end(index)
            except Exception:
                log.exception("loading %s failed", name)
                self._end(index)

        try:
            threading.Thread(target=attempt, name=f"loader of {name}", daemon=True).start()
        except RuntimeError as error:  # no thread to be had, for now
            log.error("%s can't be loaded: %s", name, error)
            self._end(index)

    def _fetch(self, index: int) -> None:
        self._loader.fetch(replace(self._requests[index], prefer_cache=index in self._known))
        self._fetched.append(index)
        os.write(self._wake, b"\0")

    def _load(self, index: int) -> None:
        self._deaths[index] = min(self._deaths[index] + 1, MOST_DEATHS)
        try:
            runtime = self._timed_load(index, prefer_cache=True)  # it has just been fetched
        finally:
            self._deaths[index] = 0  # only a process that has died of it does not come here
        self._end(index, runtime)

    def _end(self, index: int, runtime: Runtime | None = None) -> None:
        self._ended.append((index, runtime))
        os.write(self._wake, b"\0")

    def _timed_load(self, index: int, *, prefer_cache: bool) -> Runtime:
        request = replace(self._requests[index], prefer_cache=prefer_cache)
        started = time.monotonic()
        runtime = self._loader.load(request)
        spec = runtime.spec
        log.info("%s is loaded: %s, %s, %.1f s", request.name, spec.device, spec.dtype, time.monotonic() - started)
        return runtime

    def _remember_deaths(self) -> None:
        for index, deaths in enumerate(self._deaths[:]):
            if deaths:
                wait_s = RETRY_AFTER_S * 2**deaths
                self._retry_at[index] = time.monotonic() + wait_s
                log.error(
                    "an engine died while it loaded %s, which is not tried again for %.0f s",
                    self._requests[index].name,
                    wait_s,
                )
