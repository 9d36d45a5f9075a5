"""The gRPC port in the process that forks the workers: checked before models are loaded, and kept for the workers.

Each worker listens on it itself (SO_REUSEPORT), and the kernel spreads connections over them. Imports no grpcio, whose
threads would not survive the fork.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from importlib.util import find_spec

from iei import ports
from iei.errors import StartupError
from iei.settings import Settings


@dataclass(frozen=True, slots=True)
class GrpcPort:
    """A port that no other program can listen on while this exists."""

    address: str
    """`host:port`, where port 0 has become the one that was chosen."""
    _held: socket.socket
    """Bound but not listening: only sockets of the same user with SO_REUSEPORT can be bound to the same port."""

    def close(self) -> None:
        """Lets others have it. A server keeps it until its process ends."""
        self._held.close()


def reserve(settings: Settings) -> GrpcPort | None:
    """The port that `IEI_GRPC_BIND` names. None if it is not set.

    Raises:
        StartupError: grpcio is not installed, or the address is in use or not one of this machine's.
    """
    bind = settings.server.grpc_bind
    if not bind:
        return None
    if not (find_spec("grpc") and find_spec("google") and find_spec("google.protobuf")):
        raise StartupError(
            f"IEI_GRPC_BIND={bind!r} needs grpcio and protobuf: pip install 'image-embedding-inference[grpc]'."
        )
    held = ports.bind(bind, "IEI_GRPC_BIND", shared=True)
    return GrpcPort(ports.shown(held), held)
