"""Workers that end in unusual ways: before their port is open, or by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import httpx
import psutil
import pytest
import uvicorn
from starlette.responses import Response

from iei.serving.connections import Connections
from iei.serving.spread import Spread
from iei.serving.stopping import Stopping
from iei.settings import ConnectionSettings, ServerSettings
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import METRICS
from tests.servers import gunicorn_command, serve

LIMIT_S = 20.0
MANY = 20


def test_a_worker_that_is_stopped_while_it_starts_ends() -> None:
    async def scenario() -> None:
        server = uvicorn.Server(uvicorn.Config("never:imported"))
        spread = Spread(Counters(METRICS))
        connections = Connections(ConnectionSettings(), lambda scope, error: Response(status_code=error.status), spread)
        stopping = Stopping(server, connections, ServerSettings(drain_s=0), None, lambda: None)
        stopping.take_signals()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(LIMIT_S):
            await stopping.port_closed.wait()
        assert server.should_exit

    asyncio.run(scenario())


@pytest.mark.server
def test_a_worker_that_has_had_its_requests_is_replaced(demo_cache: str) -> None:
    """gunicorn's --max-requests: uvicorn ends by itself, without a signal."""
    pytest.importorskip("grpc", reason="needs the extra grpc")
    env = {"IMAGE_EMBEDDING_MODEL": "demo", "IEI_CACHE_DIR": demo_cache, "IEI_GRPC_BIND": "127.0.0.1:0"}
    command = [*gunicorn_command(1, "uvicorn.workers.UvicornWorker"), "--max-requests", str(MANY)]
    with serve(env, command=command) as server:
        (first,) = server.workers()
        for _ in range(MANY):
            with contextlib.suppress(httpx.TransportError):  # the worker may end with the connection
                httpx.get(f"{server.url}/health", timeout=LIMIT_S)
        assert psutil.wait_procs([first], timeout=LIMIT_S)[0]
