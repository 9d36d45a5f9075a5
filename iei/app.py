"""The ASGI application of a worker: routers, middleware, lifespan."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from iei import __version__
from iei.dialects import kserve, litserve, openai, tei
from iei.dialects.wire import json_response
from iei.engine.api import Engine
from iei.errors import IEIError
from iei.middleware.body import BodyLimits, CancelWhenGone, Unpack
from iei.middleware.trace import Trace
from iei.models.catalog import DEMO, catalog
from iei.service import Embedder
from iei.settings import Settings

log = logging.getLogger(__name__)

ErrorBody = Callable[[IEIError], bytes]


def create_app(settings: Settings, engine: Engine) -> FastAPI:
    served = catalog(settings)
    embedder = Embedder(settings, served, engine)
    for name, model_id in zip(served.names, served.ids, strict=True):
        if model_id == DEMO:
            log.warning("%s is the built-in demo model: UNTRAINED, its vectors carry no meaning", name)

    made_by = os.getpid()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(_end_when_orphaned(made_by))
        await embedder.start()
        yield
        await embedder.stop()
        watch.cancel()

    app = FastAPI(
        title="IEI, Image Embedding Inference",
        version=__version__,
        lifespan=lifespan,
        middleware=[
            Middleware(Trace, on_bug=_on_bug),
            Middleware(CancelWhenGone),
            Middleware(Unpack),
            Middleware(BodyLimits, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s),
        ],
        exception_handlers={IEIError: _on_iei_error, HTTPException: _on_http_exception},
        redirect_slashes=False,  # to an absolute URL with http://, whatever a proxy has in front
    )
    for dialect in (tei, openai, kserve, litserve):
        app.include_router(dialect.router(embedder))
    return app


async def _end_when_orphaned(master: int) -> None:
    """Ends a forked worker whose master was killed: uvicorn's worker would serve on, with nobody to stop it."""
    if os.getpid() == master:
        return
    while os.getppid() == master:  # noqa: ASYNC110 - nothing announces that a parent has died
        await asyncio.sleep(1)
    log.error("the master process is gone: stopping")
    os.kill(os.getpid(), signal.SIGTERM)


def error_body(path: str) -> ErrorBody:
    """How errors look in the dialect that `path` belongs to."""
    return next((shape for prefix, shape in _ERROR_SHAPES if path.startswith(prefix)), tei.error_body)


_ERROR_SHAPES: tuple[tuple[str, ErrorBody], ...] = (
    ("/v1/", openai.error_body),
    ("/v2", kserve.error_body),
    ("/predict", litserve.error_body),
)


async def _on_iei_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, IEIError)
    return _answer(request.scope, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, or not with this method."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    message = f"{error.detail}: {request.method} {path}; the routes are listed at /docs"
    return _answer(request.scope, _with_status(error.status_code, message), error.headers)


def _on_bug(scope: Scope) -> Response:
    return _answer(scope, _with_status(500, "an internal error; the server's log has its traceback"))


def _with_status(status: int, message: str) -> IEIError:
    error = IEIError(message)
    error.status = status
    if status < 500:
        error.error_type = "Validation"
    return error


def _answer(scope: Scope, error: IEIError, headers: object = None) -> Response:
    response = json_response(error_body(scope["path"])(error), error.status)
    if isinstance(headers, dict):
        response.headers.update(headers)
    if error.retry_after_s:
        response.headers["retry-after"] = str(error.retry_after_s)
    if error.status in (408, 413):
        response.headers["connection"] = "close"  # the rest of the body is not read
    return response
