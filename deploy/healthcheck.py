"""Exit 0 when this container's server is ready: `GET /health` at the address of `IEI_BIND`, or Vertex AI's port of it.

Slim images have no curl. Only the standard library, and no proxy from the environment: this asks this very machine.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys

TIMEOUT_S = 4.0


def status(bind: str, *, tls: bool) -> int:
    """The HTTP status of `/health`. Raises OSError when nobody answers at `bind` (`host:port` or `unix:/path`)."""
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
    connection.sock = encrypted(connect(bind)) if tls else connect(bind)
    connection.request("GET", "/health")
    return connection.getresponse().status


def connect(bind: str) -> socket.socket:
    """A connection to the server that listens at `bind`."""
    if bind.startswith("unix:"):
        unix = socket.socket(socket.AF_UNIX)
        unix.settimeout(TIMEOUT_S)
        unix.connect(bind.removeprefix("unix:"))
        return unix
    host, _, port = bind.rpartition(":")
    # "Every address" is where a server listens, not where a client connects.
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def encrypted(plain: socket.socket) -> ssl.SSLSocket:
    """TLS over a connection to this machine: its certificate is for the name that clients use, and is not checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)


if __name__ == "__main__":
    try:
        bind = os.environ.get("IEI_BIND") or "0.0.0.0:8000"
        if port := os.environ.get("IEI_VERTEX_PORT") or os.environ.get("AIP_HTTP_PORT"):
            bind = f"{bind.rpartition(':')[0]}:{port}"
        answer = status(bind, tls=bool(os.environ.get("IEI_TLS_CERT")))
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"no answer from the server: {error}")
    sys.exit(None if answer == 200 else f"/health answers {answer}")
