"""Ports that are reserved before models are loaded: a start that can't have one ends in a sentence."""

from __future__ import annotations

import errno
import socket

from iei.errors import StartupError


def bind(where: str, setting: str, *, shared: bool = False) -> socket.socket:
    """A socket that is bound, and does not listen yet.

    Args:
        where: `host:port`, with IPv6 addresses in brackets; port 0 is any that is free.
        setting: the variables that choose it, for the error.
        shared: whether other processes of this server are to listen on the same port (SO_REUSEPORT).

    Raises:
        StartupError: the address is in use, or not one of this machine's.
    """
    host, _, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if int(port) > 65535:  # getaddrinfo would take it modulo 65536
        raise StartupError(f"can't listen on {where} ({setting}): ports end at 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        bound = _bound(family, kind, protocol, address, socket.SO_REUSEADDR)  # connections in TIME_WAIT don't count
        if not shared:
            return bound
        # The first was bound without SO_REUSEPORT: with it, this would join another server of the same user.
        bound.close()
        return _bound(family, kind, protocol, address, socket.SO_REUSEPORT)
    except OSError as error:
        advice = " Stop what listens there, or choose another port." if error.errno == errno.EADDRINUSE else ""
        raise StartupError(f"can't listen on {where} ({setting}): {error.strerror}.{advice}") from None


def shown(bound: socket.socket) -> str:
    """`host:port` of a socket that is bound, where port 0 has become the one that was chosen."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if bound.family == socket.AF_INET6 else f"{host}:{port}"


def _bound(family: int, kind: int, protocol: int, address: tuple[object, ...], option: int) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
