"""The ASGI application of a worker: dialects and middleware, and what runs beside them."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from iei import __version__
from iei.access.headers import Sender, anybody, by_key
from iei.access.keys import read_keyring
from iei.access.priority import PriorityRule
from iei.access.quotas import Quotas
from iei.dialects import DIALECTS, server
from iei.dialects.introduction import introduction
from iei.dialects.json_size import JsonLimits
from iei.dialects.openapi import with_keys
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
from iei.middleware.priority import Prioritize
from iei.middleware.routes import RouteNames
from iei.middleware.trace import Trace
from iei.middleware.turn_away import TurnAway
from iei.models.catalog import DEMO, DEMO_NOTE, Catalog
from iei.page import reference, site
from iei.service import EmbeddingService
from iei.serving.flag import SharedFlag
from iei.serving.preload import preload
from iei.settings import Settings
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import RequestMetrics
from iei.telemetry.record import Observer
from iei.telemetry.request_log import log_requests
from iei.telemetry.traces import read_traces
from iei.worker import computing, counting, ending_with_master, hosting, lifespan, serving_grpc, tracing

log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    catalog: Catalog,
    engine: Engine,
    counters: Counters,
    grpc_port: GrpcPort | None = None,
    is_last: SharedFlag | None = None,
) -> FastAPI:
    """The application that every worker serves. Opens no connection: make it before the workers are forked.

    Args:
        settings: all of them; each part gets its own group.
        catalog: the models that may be asked for, the same that `engine` was made with.
        engine: runs them.
        counters: what `/metrics` shows, counted together with all processes that have them.
        grpc_port: where each worker serves gRPC, too.
        is_last: set by the master before it stops all workers, if there is a master that does.

    Raises:
        StartupError: a setting makes no sense.
    """
    preload()
    for entry in catalog.entries:
        if entry.id == DEMO:
            log.warning("%s is the built-in demo model: %s", entry.name, DEMO_NOTE)
    if grpc_port:
        log.info("gRPC is served on %s", grpc_port.address)
    keyring = read_keyring(settings.access)
    threads = settings.inputs.threads(settings.server.workers)
    preparer = Preparer(settings.inputs, threads, settings.engine.max_encoded_bytes)
    devices = len(settings.engine.devices)
    service = EmbeddingService(engine, catalog, preparer, settings.requests, devices, counters)
    shows_metrics = not settings.server.metrics_bind and (keyring or settings.access.public_metrics is not False)
    state = server.dialect(service, client_limits(settings), counters if shows_metrics else None)
    is_shown = keyring is not None or settings.access.public_docs is not False
    pages = [*([site.dialect()] if settings.access.page else []), *([reference.dialect()] if is_shown else [])]
    dialects = Dialects([*(make(service, settings.dialects) for make in DIALECTS), *pages, state])

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
    traces = read_traces(settings.traces)
    observers: list[Observer] = [
        *([traces] if traces else []),  # first: the log names the trace
        RequestMetrics(counters),
        *log_requests(settings.logs, quiet=dialects.health_routes | {("GET", "/metrics")}),
    ]
    route_of = RouteNames()
    grpc = serving_grpc(grpc_port, service, settings, sender, observers) if grpc_port else None
    parts = [
        counting(counters, catalog.names, lambda: engine.shared_bytes),
        ending_with_master(),
        tracing(traces),
        computing(service),
        hosting(settings, respond, is_last, service, counters, grpc),
    ]

    app = FastAPI(
        title="IEI, Image Embedding Inference",
        version=__version__,
        description=introduction(service.default, dialects, has_keys=keyring is not None),
        openapi_tags=[{"name": each.name, "description": each.about} for each in dialects if each.is_documented],
        lifespan=lifespan(parts),
        openapi_url="/openapi.json" if is_shown else None,
        docs_url=None,  # FastAPI's own are blank pages where the internet can't be reached
        redoc_url=None,
        middleware=[
            Middleware(ModelPrefix, is_served=catalog.__contains__),
            *cors(settings.access.cors_origins),
            Middleware(Trace, respond=respond, route_of=route_of, observers=observers),
            Middleware(AnswerErrors, respond=respond),
            *guard,
            Middleware(Prioritize, rule=PriorityRule(settings.requests.bulk_routes)),
            Middleware(TurnAway, check=service.check_room),
            Middleware(CancelWhenGone),
            Middleware(Unpack),
            Middleware(BodyLimits, settings=settings.body),
        ],
        exception_handlers={HTTPException: _raise_as_iei_error},
        telemetry={"tracing": False, "metrics": False, "logs": False},  # there would be two spans of each request
        redirect_slashes=False,  # to an absolute URL with http://, whatever a proxy has in front
    )
    app.state.json_limits = JsonLimits.of(settings)
    for dialect in dialects:
        app.router.routes.extend(dialect.routes)  # `include_router` would make each anew, and look for it in two steps
    route_of.read(app)
    if keyring:
        app.openapi = with_keys(app.openapi, dialects.health_routes)  # type: ignore[method-assign]  # FastAPI's way
    return app


_PAGES = frozenset({"/openapi.json"})
"""What /docs shows."""

_METRICS = frozenset({"/metrics"})


def client_limits(settings: Settings) -> dict[str, Any]:
    """The settings that clients meet, by name: `/info` shows them."""
    groups = (settings.requests, settings.body, settings.inputs)
    return {name: getattr(group, name) for group in groups for name in _CLIENT_LIMITS if hasattr(group, name)}


_CLIENT_LIMITS = (
    "max_inputs",
    "max_output_values",
    "max_queue",
    "max_queue_bulk",
    "concurrency_level",
    "request_timeout_s",
    "max_body_bytes",
    "body_timeout_s",
    "max_image_bytes",
    "max_image_pixels",
    "max_image_side",
    "max_patches",
    "url_inputs",
    "url_timeout_s",
)


async def _raise_as_iei_error(request: Request, error: Exception) -> NoReturn:
    """Starlette's own error, no such route or not with this method, in the form of all others."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    message = f"{error.detail}: {request.method} {path}; the routes are listed at /docs"
    headers = {"allow": _methods(request)} if error.status_code == 405 else error.headers or {}
    raise RouteError(message, error.status_code, headers) from error


def _methods(request: Request) -> str:
    """The methods that this path has. Starlette names only those of the first of its routes."""
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    routes = request.app.routes
    return ", ".join(
        method for method, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)
    )


_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def _response(body: bytes, error: IEIError) -> Response:
    response = json_response(body, error.status, error.headers)
    if error.retry_after_s:
        response.headers["retry-after"] = str(error.retry_after_s)
    return response
