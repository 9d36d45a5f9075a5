"""What a worker runs for as long as it lives, besides answering requests: parts that are begun and ended in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any, NoReturn

from iei.access.headers import Sender
from iei.grpc.port import GrpcPort
from iei.priority import Priority
from iei.service import EmbeddingService
from iei.serving.connections import Respond
from iei.serving.flag import SharedFlag
from iei.serving.host import hosted
from iei.serving.stopping import Stopping
from iei.settings import Settings
from iei.telemetry import rate
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import ARENAS, IN_WORK
from iei.telemetry.record import Observer
from iei.telemetry.traces import Traces

log = logging.getLogger(__name__)

Part = Callable[[], AbstractAsyncContextManager[Any]]
"""Begun in each worker after the fork, and ended with it."""


def lifespan(parts: Sequence[Part]) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """Of an ASGI app: enters the parts in their order before the first request, and leaves them after the last."""

    @asynccontextmanager
    async def living(_: object) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for part in parts:
                await stack.enter_async_context(part())
            yield

    return living


def counting(counters: Counters, models: Sequence[str], shared_bytes: Callable[[], int]) -> Part:
    """Joins those who count, and measures once a second what is not counted as it happens."""

    @asynccontextmanager
    async def counted() -> AsyncIterator[None]:
        counters.join("worker")
        for model in models:  # the queue of a model that nobody has asked for is 0, and not unknown
            for priority in Priority:
                counters.add(IN_WORK, (model, priority.label), 0)
        measuring = asyncio.create_task(_measure(counters, shared_bytes))
        yield
        measuring.cancel()

    return counted


async def _measure(counters: Counters, shared_bytes: Callable[[], int]) -> NoReturn:
    while True:
        counters.set(ARENAS, (), shared_bytes())
        rate.sample(counters, time.monotonic())
        await asyncio.sleep(rate.EVERY_S)


def ending_with_master() -> Part:
    """Ends a forked worker whose master was killed: uvicorn's worker would serve on, with nobody to stop it."""
    master = os.getpid()

    async def watch() -> None:
        while os.getppid() == master:  # noqa: ASYNC110 - nothing announces that a parent has died
            await asyncio.sleep(1)
        log.error("the master process is gone: stopping")
        os.kill(os.getpid(), signal.SIGTERM)

    @asynccontextmanager
    async def watched() -> AsyncIterator[None]:
        if os.getpid() == master:  # not forked
            yield
            return
        watching = asyncio.create_task(watch())
        yield
        watching.cancel()

    return watched


def tracing(traces: Traces | None) -> Part:
    """Sends the spans of requests."""

    @asynccontextmanager
    async def traced() -> AsyncIterator[None]:
        if traces:
            traces.start()
        yield
        if traces:
            traces.stop()

    return traced


def computing(service: EmbeddingService) -> Part:
    """Connects to the engines, and prepares inputs."""

    @asynccontextmanager
    async def computed() -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    return computed


def hosting(
    settings: Settings,
    respond: Respond,
    is_last: SharedFlag | None,
    service: EmbeddingService,
    counters: Counters,
    grpc: GrpcPart | None,
) -> Part:
    """Bounds the connections of the server that runs the app, and stops it in order; with gRPC beside it, if wanted."""

    @asynccontextmanager
    async def hosted_with_grpc() -> AsyncIterator[None]:
        host = hosted(settings, respond, is_last, service.drain, counters)
        async with host as stopping, grpc(stopping) if grpc else nullcontext():
            yield

    return hosted_with_grpc


GrpcPart = Callable[[Stopping | None], AbstractAsyncContextManager[None]]
"""Serves gRPC until the port of HTTP is closed."""


def serving_grpc(
    port: GrpcPort,
    service: EmbeddingService,
    settings: Settings,
    sender: Sender,
    observers: Sequence[Observer],
) -> GrpcPart:
    """The gRPC server of each worker, for `hosting`."""

    @asynccontextmanager
    async def serving(stopping: Stopping | None) -> AsyncIterator[None]:
        from iei.grpc.server import GrpcServer  # in the worker: grpcio must not be started before a fork

        server = GrpcServer(port, service, settings, sender, observers)

        async def stop_with_http(stopping: Stopping) -> None:
            await stopping.port_closed.wait()
            await server.stop(stopping.grace_s)

        await server.start()
        stop = asyncio.create_task(stop_with_http(stopping)) if stopping else None
        yield
        if stopping:
            stopping.port_closed.set()  # by now, also where uvicorn ends by itself, as for gunicorn's --max-requests
        await (stop or server.stop(settings.server.graceful_timeout_s))

    return serving
