"""The health check that Kubernetes, Envoy and `grpc_health_probe` call: grpc.health.v1.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from iei.errors import RouteError
from iei.grpc.calls import Method, Reply
from iei.service import EmbeddingService

SERVICE = "grpc.health.v1.Health"
SERVING, NOT_SERVING = 1, 2


def methods(service: EmbeddingService, services: Collection[str]) -> Mapping[str, Method]:
    """The methods of `SERVICE`, without the stream `Watch`.

    Args:
        service: its readiness is that of all services.
        services: the full names that may be asked for. The empty name means the server as a whole.
    """

    async def check(request: Any) -> Reply:
        if request.service and request.service not in services:
            raise RouteError(f"there is no service {request.service[:100]!r}; there are {', '.join(services)}", 404, {})
        return Reply({"status": SERVING if service.ready else NOT_SERVING})

    return {"Check": Method("HealthCheckRequest", "HealthCheckResponse", check, is_guarded=False)}
