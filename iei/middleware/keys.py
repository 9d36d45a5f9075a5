"""Middleware that lets only requests with an API key through."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from iei.access.headers import key_of
from iei.access.keys import Keyring
from iei.access.quotas import SENDER, Quotas
from iei.errors import Unauthorized
from iei.priority import PRIORITY
from iei.telemetry.record import current


class RequireKey:
    """Raises `Unauthorized` before the body is read, unless the request has a key or its route is open to all.

    Args:
        app: the ASGI app inside.
        keyring: the keys that are accepted.
        quotas: the counters of keys with limits.
        is_open: whether the request of a scope needs no key.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, quotas: Quotas, is_open: Callable[[Scope], bool]) -> None:
        self._app = app
        self._keyring = keyring
        self._quotas = quotas
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        try:
            key = key_of(Headers(scope=scope), self._keyring)
        except Unauthorized:
            if self._is_open(scope):  # asked last: it matches the path with all routes
                return await self._app(scope, receive, send)
            raise
        current().key = key.name
        quota_before, priority_before = SENDER.set(self._quotas.of(key)), PRIORITY.set(key.priority)
        try:
            await self._app(scope, receive, send)
        finally:
            PRIORITY.reset(priority_before)
            SENDER.reset(quota_before)
