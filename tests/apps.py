"""Apps for tests, around an engine that they bring along."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from iei.app import create_app
from iei.engine.api import Engine
from iei.grpc.port import GrpcPort
from iei.models.catalog import read_catalog
from iei.runtimes import loading
from iei.runtimes.api import Model
from iei.settings import read_settings
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import METRICS
from tests.engine.runtimes_for_tests import SPEC

ERROR_FIELDS: Mapping[str, set[str]] = {
    "/embed": {"error", "error_type", "detail"},
    "/v1/embeddings": {"error", "message", "detail"},
    f"/v2/models/{SPEC.name}/infer": {"error"},
    "/vertex": {"error"},
    "/predict": {"detail"},
    "/vectors": {"error"},
    "/vectorize": {"error"},
    "/qdrant": {"error"},
    "/v2/embed": {"id", "message"},
    "/v1/multimodalembeddings": {"detail"},
    "/api/embed": {"error"},
}
"""A route of each dialect → the fields that its errors have."""


def app_around(engine: Engine, **settings: Any) -> FastAPI:
    """An app of these settings; its catalog is what they say, if the model is not named the engine's default."""
    return app_with_grpc(engine, None, **settings)


def app_with_grpc(engine: Engine, port: GrpcPort | None, **settings: Any) -> FastAPI:
    """An app that serves gRPC on `port`, too."""
    read = read_settings(**{"model": engine.default.name, **settings})
    return create_app(read, read_catalog(read.models), engine, Counters(METRICS), port)


@asynccontextmanager
async def client_around(engine: Engine, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app_around`, in this process."""
    app = app_around(engine, **settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://iei") as client,
    ):
        yield client


def default_model(**settings: Any) -> Model:
    """The first model of these settings, loaded on the CPU."""
    read = read_settings(**settings)
    request, *_ = read_catalog(read.models).load_requests("cpu", read.load)
    return loading.load(request)
