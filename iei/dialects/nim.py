"""What NVIDIA's NIMs have besides OpenAI's routes: their health, and what they are made of.

Wire format: docs/api/openai.md.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from iei import __version__
from iei.dialects.openai_errors import EmbeddingsError, error_body
from iei.dialects.openapi import errors_as
from iei.dialects.registry import Dialect
from iei.errors import Unhealthy
from iei.service import EmbeddingService
from iei.settings import DialectSettings


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes. It has no settings."""
    routes = APIRouter(responses=errors_as(EmbeddingsError))
    health = APIRouter(responses=errors_as(EmbeddingsError))

    @health.get("/v1/health/ready", summary="Is the server ready? As NVIDIA's NIMs say")
    async def ready() -> dict[str, str]:
        """Readiness: 200 if the engine is running and has loaded its model, and 503 otherwise."""
        if not service.ready:
            raise Unhealthy("Service is not ready: the engine is not running (yet)")
        return {"object": "health.response", "message": "Service is ready."}

    @health.get("/v1/health/live", summary="Is the server alive? As NVIDIA's NIMs say")
    async def live() -> dict[str, str]:
        """Liveness: 200 if the event loop of this worker responds."""
        return {"object": "health.response", "message": "Service is live."}

    @routes.get("/v1/metadata", summary="Describe the server as NVIDIA's NIMs do")
    async def metadata() -> dict[str, Any]:
        """The version of the server, and its models."""
        models = [{"shortName": name, "modelUrl": ""} for name in service.model_names]
        return {"version": __version__, "modelInfo": models, "assetInfo": [], "licenseInfo": {}}

    return Dialect("NVIDIA NIM", error_body, routes, health, about="Health and metadata, as NVIDIA's NIMs have them.")
