"""Where workers find a running engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from iei.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """What a worker must know of an engine to connect to it."""

    path: Path
    """Path of the engine's Unix socket."""
    default: ModelSpec
    """The first model of the catalog, which the engine has loaded before anybody connects."""
