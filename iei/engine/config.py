"""All that an engine process needs to know: handed down from the settings, through the supervisor, as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter

from iei.models.spec import LoadRequest

LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    models: tuple[LoadRequest, ...]
    """What may be loaded. Frames name models by their place here; the first is loaded before anything is served."""
    max_loaded: int = 1
    """Most models in memory at a time; the least recently used one makes room."""
    at_start: int = 1
    """How many of `models`, from the first on, are loaded before anything is served."""
    timeout_s: float = 300.0
    """A forward that runs longer has hung, and the process is replaced."""
    log_level: LogLevel = "info"

    def to_json(self) -> bytes:
        return _ADAPTER.dump_json(self)

    @staticmethod
    def from_json(text: bytes) -> EngineConfig:
        return _ADAPTER.validate_json(text)


_ADAPTER = TypeAdapter(EngineConfig)
