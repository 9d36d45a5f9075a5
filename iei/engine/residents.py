"""The models in an engine's memory: loaded on demand in a thread of their own, the least recently used one evicted.

Loading never holds up requests for models that are there already.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from iei.engine.runtimes import Runtime
from iei.errors import StartupError
from iei.models.spec import LoadRequest

log = logging.getLogger("iei.engine")


RETRY_AFTER_S = 30.0
"""A model that could not be loaded is not tried again before."""

Load = Callable[[LoadRequest], Runtime]


def load_torch(request: LoadRequest) -> Runtime:
    # torch and transformers take seconds to import and must be in no process that only reads this module.
    from iei.engine.runtimes import torch

    return torch.load(request)


class Residents:
    """
    Args:
        wake: called from the loading thread when `collect` has something to give.
    """

    def __init__(
        self, requests: Sequence[LoadRequest], max_loaded: int, wake: Callable[[], object], load: Load = load_torch
    ) -> None:
        self._requests = requests
        self._max_loaded = max_loaded
        self._wake = wake
        self._load = load
        self._loaded: OrderedDict[int, Runtime] = OrderedDict()
        self._loading: set[int] = set()
        self._failures: dict[int, tuple[float, str]] = {}
        self._orders: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._arrivals: queue.SimpleQueue[tuple[int, Runtime | str]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def get(self, index: int) -> Runtime | None:
        """The model, if it is loaded; from now on the most recently used one."""
        runtime = self._loaded.get(index)
        if runtime:
            self._loaded.move_to_end(index)
        return runtime

    def load_now(self, index: int) -> Runtime:
        """Loads in this thread.

        Raises:
            StartupError: one sentence that says why not.
        """
        runtime = self._loaded[index] = self._timed_load(index)
        return runtime

    def request(self, index: int) -> None:
        """Has the model loaded in the background; `collect` tells when. Asking twice loads once."""
        if index in self._loading:
            return
        failed_at, message = self._failures.get(index, (-RETRY_AFTER_S, ""))
        if time.monotonic() - failed_at < RETRY_AFTER_S:  # a missing file or a hub that is down won't be back so soon
            self._loading.add(index)
            self._arrivals.put((index, message))
            self._wake()
            return
        self._loading.add(index)
        self._orders.put(index)
        if self._thread is None:
            self._thread = threading.Thread(target=self._load_orders, name="loader", daemon=True)
            self._thread.start()

    def collect(self) -> list[tuple[int, str | None]]:
        """Models that have arrived since the last call, each with None, or with why it could not be loaded."""
        arrived: list[tuple[int, str | None]] = []
        while not self._arrivals.empty():
            index, runtime = self._arrivals.get()
            self._loading.discard(index)
            if isinstance(runtime, str):
                arrived.append((index, runtime))
                continue
            self._loaded[index] = runtime
            while len(self._loaded) > self._max_loaded:
                evicted, _ = self._loaded.popitem(last=False)
                log.info("%s makes room for %s", self._requests[evicted].name, self._requests[index].name)
            arrived.append((index, None))
        return arrived

    def _load_orders(self) -> None:
        while True:
            index = self._orders.get()
            try:
                self._arrivals.put((index, self._timed_load(index)))
            except StartupError as error:
                self._fail(index, str(error))
            except Exception as error:
                log.exception("loading %s failed", self._requests[index].name)
                self._fail(index, f"{self._requests[index].name} can't be loaded: {error}")
            self._wake()

    def _fail(self, index: int, message: str) -> None:
        self._failures[index] = (time.monotonic(), message)
        self._arrivals.put((index, message))

    def _timed_load(self, index: int) -> Runtime:
        request = self._requests[index]
        started = time.monotonic()
        runtime = self._load(request)
        spec = runtime.spec
        log.info("%s is loaded: %s, %s, %.1f s", request.name, spec.device, spec.dtype, time.monotonic() - started)
        return runtime
