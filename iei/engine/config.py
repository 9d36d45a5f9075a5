"""All that an engine process needs to know, passed from the settings through the supervisor as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter

from iei.models.catalog import LoadRequest
from iei.telemetry.logs import Form


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The configuration of one engine process. Immutable."""

    models: tuple[LoadRequest, ...]
    """The models that may be loaded, in the catalog's order. Frames name models by their place here."""
    max_loaded: int
    """Most models in memory at a time; the least recently used one is evicted."""
    at_start: int
    """How many of `models`, from the first on, are loaded before anything is served."""
    timeout_s: float
    """A forward that runs longer has hung: the process ends, and the supervisor starts another."""
    logs: Form
    """What the engine and its supervisor log, and how."""

    def to_json(self) -> bytes:
        """The configuration as JSON."""
        return _ADAPTER.dump_json(self)

    @staticmethod
    def from_json(text: bytes) -> EngineConfig:
        """Reverses `to_json`."""
        return _ADAPTER.validate_json(text)


_ADAPTER = TypeAdapter(EngineConfig)
