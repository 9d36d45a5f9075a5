"""An engine that has no descriptors left."""

from __future__ import annotations

import asyncio
import resource
import socket
from pathlib import Path

import pytest

from tests.engine.known_engines import KnownEngines, ask, assert_answered, connected
from tests.engine.waiting import until

pytestmark = pytest.mark.server


def test_an_engine_that_can_accept_nobody_serves_on_and_accepts_later(tmp_path: Path) -> None:
    engines = KnownEngines(tmp_path / "engine.sock")

    async def run() -> None:
        async with connected(engines) as client:
            assert_answered(1, await ask(client, 1))
            before = _allow_no_more(engines.process.pid)
            with socket.socket(socket.AF_UNIX) as waiting:
                waiting.connect(str(engines.address.path))
                await until(lambda: "a worker can't connect" in engines.log)
                assert_answered(2, await ask(client, 2))
                resource.prlimit(engines.process.pid, resource.RLIMIT_NOFILE, before)
                async with connected(engines) as other:
                    assert_answered(3, await ask(other, 3))
        assert "Too many open files" in engines.log
        assert engines.log.count("a worker can't connect") == 1
        assert engines.started == 1

    try:
        asyncio.run(run())
    finally:
        engines.stop()


def _allow_no_more(pid: int) -> tuple[int, int]:
    """Leaves a process the descriptors that it has. Returns the limits from before."""
    used = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    limit = min(set(range(len(used) + 1)) - used)  # a new descriptor is the lowest that is free
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    return resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
