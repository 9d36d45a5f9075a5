"""The uvicorn that runs this worker, given the limits and the signals that are IEI's.

An ASGI app can't choose its server's protocol: gunicorn's worker class does, and `uvicorn.workers.UvicornWorker` takes
uvicorn's own. But uvicorn has made itself the handler of SIGTERM before it starts the app's lifespan, and there the
app finds it. So the limits hold however the server was started.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from uvicorn import Server

from iei.serving.accepting import accept_evenly
from iei.serving.connections import Connections, Respond
from iei.serving.flag import SharedFlag
from iei.serving.spread import Spread
from iei.serving.stopping import Stopping
from iei.settings import Settings
from iei.telemetry.counters import Counters

log = logging.getLogger(__name__)


def running_server() -> Server | None:
    """The uvicorn that runs this process; None if another server does, or none."""
    handler = signal.getsignal(signal.SIGTERM)
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Server) else None


@asynccontextmanager
async def hosted(
    settings: Settings,
    respond: Respond,
    is_last: SharedFlag | None,
    announce: Callable[[], None],
    counters: Counters,
) -> AsyncIterator[Stopping | None]:
    """Bounds and spreads the connections of this worker, and has it stop as `Stopping` says.

    Entered before the port is open.

    Args:
        settings: how long things may take.
        respond: makes the response to a request that is refused.
        is_last: see `Stopping`.
        announce: see `Stopping`.
        counters: which this process has joined.

    Yields:
        What will stop this worker; None outside of uvicorn, which is for tests: nothing is limited there.
    """
    server = running_server()
    if server is None:
        log.debug("not run by uvicorn: connections have no limits")
        yield None
        return
    gc.freeze()  # what is there stays: a collection would go through it all, and write to pages that workers share
    connections = Connections(settings.connections, respond, Spread(counters))
    accept_evenly(asyncio.get_running_loop(), connections)
    server.config.http_protocol_class = connections.protocol  # type: ignore[assignment]  # called, and nothing else
    server.config.ws_protocol_class = None  # a connection that changes its protocol would leave the limits behind
    stopping = Stopping(server, connections, settings.server, is_last, announce)
    stopping.take_signals()
    watch = asyncio.create_task(connections.watch())
    yield stopping
    watch.cancel()
