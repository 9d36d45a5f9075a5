"""Engines in processes of their own, for tests of what passes between processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.known_engines import KnownEngines


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[KnownEngines]:
    """The engine that a test asks, anew for each test: tests kill it."""
    engines = KnownEngines(tmp_path / "engine.sock")
    yield engines
    engines.stop()
