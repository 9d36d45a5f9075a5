"""The ASGI application of a worker: dialects, middleware, lifespan."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, NoReturn

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from iei import __version__
from iei.access.headers import Sender, anybody, by_key
from iei.access.keys import read_keyring
from iei.access.quotas import Quotas
from iei.dialects import DIALECTS, server
from iei.dialects.registry import Dialects
from iei.dialects.wire import json_response
from iei.engine.api import Engine
from iei.errors import IEIError, RouteError
from iei.grpc.port import GrpcPort
from iei.inputs.preparer import Preparer
from iei.middleware.body import BodyLimits, CancelWhenGone, Unpack
from iei.middleware.cors import cors
from iei.middleware.errors import AnswerErrors
from iei.middleware.keys import RequireKey
from iei.middleware.model_prefix import ModelPrefix
from iei.middleware.routes import RouteNames
from iei.middleware.trace import Trace
from iei.models.catalog import DEMO, Catalog
from iei.page import site
from iei.service import EmbeddingService
from iei.settings import Settings
from iei.telemetry import rate
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import ARENAS, IN_WORK, RequestMetrics
from iei.telemetry.record import INTERACTIVE, Observer
from iei.telemetry.request_log import log_requests

log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    catalog: Catalog,
    engine: Engine,
    counters: Counters,
    grpc_port: GrpcPort | None = None,
) -> FastAPI:
    """The application that every worker serves. Opens no connection: make it before the workers are forked.

    Args:
        settings: all of them; each part gets its own group.
        catalog: the models that may be asked for, the same that `engine` was made with.
        engine: runs them.
        counters: what `/metrics` shows, counted together with all processes that have them.
        grpc_port: where each worker serves gRPC, too.

    Raises:
        StartupError: a setting makes no sense.
    """
    for entry in catalog.entries:
        if entry.id == DEMO:
            log.warning("%s is the built-in demo model: UNTRAINED, its vectors carry no meaning", entry.name)
    if grpc_port:
        log.info("gRPC is served on %s", grpc_port.address)
    keyring = read_keyring(settings.access)
    preparer = Preparer(settings.inputs, settings.inputs.threads(settings.server.workers))
    devices = len(settings.engine.devices)
    service = EmbeddingService(engine, catalog, preparer, settings.requests, devices, counters)
    shows_metrics = not settings.server.metrics_bind and (keyring or settings.access.public_metrics is not False)
    state = server.dialect(service, client_limits(settings), counters if shows_metrics else None)
    page = [site.dialect()] if settings.access.page else []
    dialects = Dialects([*(make(service, settings.dialects) for make in DIALECTS), *page, state])

    def respond(scope: Scope, error: IEIError) -> Response:
        return _response(dialects.owner(scope).error_body(error), error)

    def is_open(scope: Scope) -> bool:
        return scope["path"] in open_pages or dialects.is_health(scope)

    access = settings.access
    open_pages = (_PAGES if access.public_docs else frozenset()) | (_METRICS if access.public_metrics else frozenset())
    guard: list[Middleware] = []
    sender: Sender = anybody
    if keyring:
        quotas = Quotas()
        guard = [Middleware(RequireKey, keyring=keyring, quotas=quotas, is_open=is_open)]
        sender = by_key(keyring, quotas)
    observers = [
        RequestMetrics(counters),
        *log_requests(settings.logs, quiet=dialects.health_routes | {("GET", "/metrics")}),
    ]
    route_of = RouteNames()
    serving_grpc = _serving_grpc(grpc_port, service, settings, sender, observers) if grpc_port else nullcontext
    is_shown = keyring is not None or settings.access.public_docs is not False

    app = FastAPI(
        title="IEI, Image Embedding Inference",
        version=__version__,
        openapi_tags=[{"name": each.name, "description": each.about} for each in dialects if each.is_documented],
        lifespan=_lifespan(service, serving_grpc, counters, catalog.names, lambda: engine.shared_bytes),
        openapi_url="/openapi.json" if is_shown else None,
        middleware=[
            Middleware(ModelPrefix, is_served=catalog.__contains__),
            *cors(settings.access.cors_origins),
            Middleware(Trace, respond=respond, route_of=route_of, observers=observers),
            Middleware(AnswerErrors, respond=respond),
            *guard,
            Middleware(CancelWhenGone),
            Middleware(Unpack),
            Middleware(BodyLimits, settings=settings.body),
        ],
        exception_handlers={HTTPException: _raise_as_iei_error},
        redirect_slashes=False,  # to an absolute URL with http://, whatever a proxy has in front
    )
    needs_key = [Security(_KEY_AT_DOCS)] if keyring else []
    for dialect in dialects:
        if dialect.router:
            app.include_router(dialect.router, dependencies=needs_key, tags=[dialect.name])
        if dialect.health_router:
            app.include_router(dialect.health_router, tags=[dialect.name])
    route_of.read(app)
    return app


_KEY_AT_DOCS = HTTPBearer(auto_error=False, scheme_name="API key")
"""Shows a field for the key at /docs. `RequireKey` is what checks keys."""

_PAGES = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})
"""Where FastAPI shows the documentation of the routes: nowhere without an `openapi_url`."""

_METRICS = frozenset({"/metrics"})


def client_limits(settings: Settings) -> dict[str, Any]:
    """The settings that clients meet, by name: `/info` shows them."""
    groups = (settings.requests, settings.body, settings.inputs)
    return {name: getattr(group, name) for group in groups for name in _CLIENT_LIMITS if hasattr(group, name)}


_CLIENT_LIMITS = (
    "max_inputs",
    "max_output_values",
    "max_queue",
    "concurrency_level",
    "request_timeout_s",
    "max_body_bytes",
    "body_timeout_s",
    "max_image_bytes",
    "max_image_pixels",
    "max_patches",
    "url_inputs",
    "url_timeout_s",
)


Serving = Callable[[], AbstractAsyncContextManager[None]]
"""Serves on another port for as long as a worker runs."""


def _lifespan(
    service: EmbeddingService,
    serving_grpc: Serving,
    counters: Counters,
    models: Sequence[str],
    shared_bytes: Callable[[], int],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    made_by = os.getpid()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        counters.join("worker")
        for model in models:  # the queue of a model that nobody has asked for is 0, and not unknown
            counters.add(IN_WORK, (model, INTERACTIVE), 0)
        meanwhile = [
            asyncio.create_task(_end_when_orphaned(made_by)),
            asyncio.create_task(_measure(counters, shared_bytes)),
        ]
        await service.start()
        async with serving_grpc():
            yield
        await service.stop()
        for task in meanwhile:
            task.cancel()

    return lifespan


async def _measure(counters: Counters, shared_bytes: Callable[[], int]) -> NoReturn:
    """Measures once a second what is not counted as it happens."""
    while True:
        counters.set(ARENAS, (), shared_bytes())
        rate.sample(counters, time.monotonic())
        await asyncio.sleep(rate.EVERY_S)


def _serving_grpc(
    port: GrpcPort, service: EmbeddingService, settings: Settings, sender: Sender, observers: Sequence[Observer]
) -> Serving:
    @asynccontextmanager
    async def serving() -> AsyncIterator[None]:
        from iei.grpc.server import GrpcServer  # in the worker: grpcio must not be started before a fork

        server = GrpcServer(port, service, settings, sender, observers)
        await server.start()
        yield
        await server.stop()

    return serving


async def _end_when_orphaned(master: int) -> None:
    """Ends a forked worker whose master was killed: uvicorn's worker would serve on, with nobody to stop it."""
    if os.getpid() == master:
        return
    while os.getppid() == master:  # noqa: ASYNC110 - nothing announces that a parent has died
        await asyncio.sleep(1)
    log.error("the master process is gone: stopping")
    os.kill(os.getpid(), signal.SIGTERM)


async def _raise_as_iei_error(request: Request, error: Exception) -> NoReturn:
    """Starlette's own error, no such route or not with this method, in the form of all others."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    message = f"{error.detail}: {request.method} {path}; the routes are listed at /docs"
    raise RouteError(message, error.status_code, error.headers or {}) from error


def _response(body: bytes, error: IEIError) -> Response:
    response = json_response(body, error.status, error.headers)
    if error.retry_after_s:
        response.headers["retry-after"] = str(error.retry_after_s)
    return response
