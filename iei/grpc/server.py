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


IDLE_S = 75
"""Idle connections are closed after this time, and busy ones are asked whether anybody is there."""
MAX_STREAMS = 100
"""Most calls at the same time over one connection; clients keep others back. Each may hold a message in memory."""


class GrpcServer:
    """All services, on a port that other workers listen on, too.

    Args:
        port: reserved by the process that forked this one.
        service: computes embeddings.
        settings: limits on messages and connections, and routes of bulk.
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
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", settings.body.max_body_bytes),
                ("grpc.max_send_message_length", -1),  # IEI_MAX_OUTPUT_VALUES limits them
                ("grpc.so_reuseport", 1),
                # As for HTTP: who is slow to begin, idle, gone or greedy does not keep memory and descriptors.
                ("grpc.server_handshake_timeout_ms", round(settings.connections.head_timeout_s * 1000)),
                ("grpc.max_allowed_incoming_connections", settings.connections.max_connections),
                ("grpc.max_connection_idle_ms", IDLE_S * 1000),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                ("grpc.keepalive_time_ms", IDLE_S * 1000),
                ("grpc.keepalive_timeout_ms", round(settings.connections.write_timeout_s * 1000)),
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

    async def stop(self, grace_s: float) -> None:
        """Closes the port at once, and lets calls that are in work finish within `grace_s`."""
        await self._server.stop(grace_s)
