"""The gRPC server of a worker. Import it in the worker, not before it is forked: grpcio has threads of its own."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from iei.access.headers import Sender
from iei.access.priority import PriorityRule
from iei.grpc import health, kserve
from iei.grpc.calls import handlers
from iei.grpc.port import GrpcPort
from iei.service import EmbeddingService
from iei.settings import Settings
from iei.telemetry.record import Observer

FEW = 1000
"""Fields of a request that are not inputs: names, shapes and parameters of its tensors."""


class GrpcServer:
    """All services, on a port that other workers listen on, too.

    Args:
        port: reserved by the process that forked this one.
        service: computes embeddings.
        settings: limits on messages, routes of bulk, and the time that calls may take after `stop`.
        sender: what the sender of a call is allowed, by its metadata.
        observers: are handed the record of each call that has ended.
    """

    def __init__(
        self,
        port: GrpcPort,
        service: EmbeddingService,
        settings: Settings,
        sender: Sender,
        observers: Sequence[Observer],
    ) -> None:
        self._grace_s = settings.server.graceful_timeout_s
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", settings.body.max_body_bytes),
                ("grpc.max_send_message_length", -1),  # IEI_MAX_OUTPUT_VALUES limits them
                ("grpc.so_reuseport", 1),
            )
        )
        services = {kserve.SERVICE: kserve.methods(service)}
        services[health.SERVICE] = health.methods(service, services.keys())
        rule = PriorityRule(settings.requests.bulk_routes)
        max_elements = service.max_inputs + FEW
        self._server.add_generic_rpc_handlers(
            [handlers(name, methods, sender, rule, max_elements, observers) for name, methods in services.items()]
        )
        if settings.server.tls_cert and settings.server.tls_key:
            pair = (settings.server.tls_key.read_bytes(), settings.server.tls_cert.read_bytes())
            self._server.add_secure_port(port.address, grpc.ssl_server_credentials([pair]))
        else:
            self._server.add_insecure_port(port.address)

    async def start(self) -> None:
        """Starts to accept connections."""
        await self._server.start()

    async def stop(self) -> None:
        """Closes the port at once, and lets calls that are in work finish within the graceful timeout."""
        await self._server.stop(self._grace_s)
