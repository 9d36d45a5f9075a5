"""What an engine counts: its forwards, the models in its memory, and that memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from iei.models.spec import Modality, ModelSpec
from iei.priority import Priority
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import BATCHES, DEVICE_MEMORY, FORWARD_SECONDS, LOADED, METRICS, RUNNING

MEMORY_EVERY_S = 1.0


class Meter:
    """The metrics of one engine. For its thread.

    Args:
        counters: of the server; this process has joined them. None: nobody reads what is counted.
        memory: device → bytes allocated on it.
    """

    def __init__(self, counters: Counters | None = None, memory: Callable[[str], int] = lambda device: 0) -> None:
        self._counters = counters or Counters(METRICS)
        self._memory = memory
        self._memory_at = 0.0
        self._loaded: Sequence[ModelSpec] = ()

    @contextmanager
    def forward(self, spec: ModelSpec, modality: Modality, priorities: Sequence[Priority]) -> Iterator[None]:
        """Counts a forward, which the block runs. `priorities` are those of its inputs."""
        started = time.monotonic()
        self.begins(spec, priorities)
        try:
            yield
        finally:
            self.ended(spec, modality, priorities, time.monotonic() - started)

    def begins(self, spec: ModelSpec, priorities: Sequence[Priority]) -> None:
        """Shows the inputs of a forward as running."""
        for priority in set(priorities):
            self._counters.add(RUNNING, (spec.name, priority.label), priorities.count(priority))

    def ended(self, spec: ModelSpec, modality: Modality, priorities: Sequence[Priority], seconds: float) -> None:
        """Counts a forward that began. `seconds` in which another one was computed are not its own."""
        for priority in set(priorities):
            self._counters.add(RUNNING, (spec.name, priority.label), -priorities.count(priority))
        self._counters.observe(BATCHES, (spec.name, modality), len(priorities))
        self._counters.observe(FORWARD_SECONDS, (spec.name, modality), seconds)
        if time.monotonic() - self._memory_at > MEMORY_EVERY_S:
            self._measure_memory()

    def loaded(self, specs: Iterable[ModelSpec]) -> None:
        """Shows which models are in memory now."""
        now = list(specs)
        if now == self._loaded:
            return
        for spec in self._loaded:
            self._counters.set(LOADED, (spec.name, spec.device), 0)
        for spec in now:
            self._counters.set(LOADED, (spec.name, spec.device), 1)
            for priority in Priority:  # nothing running is 0, and not unknown
                self._counters.add(RUNNING, (spec.name, priority.label), 0)
        self._loaded = now
        self._measure_memory()

    def _measure_memory(self) -> None:
        self._memory_at = time.monotonic()
        for device in {spec.device for spec in self._loaded}:
            self._counters.set(DEVICE_MEMORY, (device,), self._memory(device))
