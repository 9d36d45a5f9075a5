"""Exit 0 when this container's server is ready: `GET /health` at the address that its settings name.

Slim images have no curl. Only the standard library, and no proxy from the environment: this asks this very machine.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import sys

TIMEOUT_S = 4.0


def address() -> str:
    """Where the server listens, by the rule of `ServerSettings.address`: `host:port` or `unix:/path`."""
    bind = os.environ.get("IEI_BIND") or "0.0.0.0:8000"
    if bind.startswith("unix:"):
        return bind
    host, port = re.fullmatch(r"(\[.*\]|[^:]*):?(\d*)", bind).groups()
    ports = (os.environ.get(name, "") for name in ("IEI_PORT", "PORT", "IEI_VERTEX_PORT", "AIP_HTTP_PORT"))
    chosen = next((each for each in ports if each.isdigit()), port or "8000")  # Kubernetes' own IEI_PORT is a URL
    return f"{os.environ.get('IEI_HOST') or host}:{chosen}"


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
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(host, host.strip("[]"))
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def encrypted(plain: socket.socket) -> ssl.SSLSocket:
    """TLS over a connection to this machine: its certificate is for the name that clients use, and is not checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)


if __name__ == "__main__":
    try:
        answer = status(address(), tls=bool(os.environ.get("IEI_TLS_CERT")))
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"no answer from the server: {error}")
    sys.exit(None if answer == 200 else f"/health answers {answer}")
