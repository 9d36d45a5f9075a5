"""The state of the server: `/`, `/health`, `/ping`, `/info` and `/metrics`.

They belong to no other contract. `/info` names the models, so it needs a key where the server has keys, and so does
`/metrics` unless it is public; the others are health routes, which don't. Wire format: docs/api/iei.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from iei import __version__
from iei.dialects.openapi import errors_as
from iei.dialects.registry import Dialect
from iei.dialects.tei_errors import EmbedError, error_body
from iei.dialects.wire import json_response, model_of
from iei.errors import Unhealthy
from iei.models.catalog import DEMO, served_name
from iei.models.spec import POOLED, ROWS, ImageTower, ModelSpec, Tower
from iei.service import EmbeddingService
from iei.telemetry.counters import Counters
from iei.telemetry.exposition import CONTENT_TYPE, metrics_text


def dialect(service: EmbeddingService, limits: Mapping[str, Any], counters: Counters | None) -> Dialect:
    """The server's own routes.

    Args:
        service: computes embeddings.
        limits: the limits on requests that `/info` reports, setting → value.
        counters: what `/metrics` shows. None: it is not here.
    """
    routes = APIRouter(responses=errors_as(EmbedError))
    health_routes = APIRouter(responses=errors_as(EmbedError))

    @routes.get("/info", summary="Describe the model and the server's limits", response_model=dict[str, Any])
    async def info(request: Request) -> Response:
        """The default model (or, at `/m/{model}/info`, that model), and the limits on requests."""
        spec = await service.describe(model_of(request))
        norms = {"normalize": service.normalizes(spec)}
        fields = {**_described(spec), **norms, **limits, "version": __version__}
        return json_response(orjson.dumps(fields))

    if counters:

        @routes.get("/metrics", summary="What Prometheus reads", response_model=None, responses=_TEXT)
        async def metrics() -> Response:
            """What all processes of this server have counted, in Prometheus' text format."""
            return Response(await asyncio.to_thread(metrics_text, counters), media_type=CONTENT_TYPE)

    @health_routes.head("/", include_in_schema=False)
    @health_routes.get(
        "/", summary="Is the server alive? As KServe V1, Ollama and immich ask", response_model=dict[str, str]
    )
    async def root() -> Response:
        """Liveness, as clients of KServe V1, Ollama and immich ask for it: 200 if this worker responds."""
        return json_response(_ROOT)

    @health_routes.head("/health", include_in_schema=False)
    @health_routes.get("/health", summary="Is the server ready to embed?", response_model=dict[str, str | float])
    async def health() -> Response:
        """Readiness: 200 if the engine is running and has loaded its model, and 503 otherwise."""
        if not service.ready:
            raise Unhealthy("the engine is not ready (yet), or the server stops")
        return json_response(orjson.dumps({"message": "OK", "unix": time.time()}))  # `unix` is for infinity's client

    @health_routes.head("/ping", include_in_schema=False)
    @health_routes.get("/ping", summary="Is the server alive?", response_model=dict[str, str])
    async def ping() -> Response:
        """Liveness: 200 if the event loop of this worker responds."""
        return json_response(b'{"message":"pong"}')

    return Dialect("Server", error_body, routes, health_routes, about="The state of the server.")


_ROOT = orjson.dumps(
    {"status": "alive", "message": "IEI", "info": "/info", "ready": "/health", "embed": "/embed", "routes": "/docs"}
)
"""What clients look for, and for people where to go on."""

_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


def _described(spec: ModelSpec) -> dict[str, Any]:
    tower = spec.tower
    return {
        "model_id": served_name(spec.id),
        "model_name": spec.name,
        "revision": spec.revision,
        "model_type": spec.model_type,
        "demo": spec.id == DEMO,
        "modalities": spec.modalities,
        "dim": tower.outputs[tower.pooling],
        "pooling": tower.pooling,
        "poolings": _poolings(tower),
        "rows": {name: dim for name, dim in tower.outputs.items() if name in ROWS},
        "image": _image(spec.image) if spec.image else None,
        "text": {"pooling": spec.text.pooling, "poolings": _poolings(spec.text)} if spec.text else None,
        "zero_shot": spec.contrast.kind if spec.contrast else None,
        "max_input_length": spec.text.max_tokens if spec.text else None,
        "matryoshka": spec.matryoshka,
        "prompts": spec.text.prompts if spec.text else {},
        "dtype": spec.dtype,
        "device": spec.device,
        "runtime": spec.runtime,
        "runtime_reason": spec.runtime_reason,
        "quality": spec.quality,
        "max_batch": spec.max_batch,
    }


def _poolings(tower: Tower) -> dict[str, int]:
    return {name: dim for name, dim in tower.outputs.items() if name in POOLED}


def _image(tower: ImageTower) -> dict[str, Any]:
    """How pictures are seen: what of them, and where each patch lies. Sizes are (height, width)."""
    geometry = tower.geometry
    rows, columns = (side // tower.stride for side in geometry.size)
    return {
        "pooling": tower.pooling,
        "poolings": _poolings(tower),
        "resize": geometry.resize,
        "resized": (geometry.height, geometry.width),
        "crop": geometry.crop,
        "decode_on": "gpu" if tower.decodes else "cpu",
        "patches": (rows, columns) if rows * columns == tower.patches else None,
    }
