"""Middleware that lets only requests with an API key through."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from iei.access.keys import Keyring
from iei.access.quotas import SENDER, Quotas
from iei.errors import Unauthorized

KEY_NAME = "api_key_name"
"""Entry of `scope["state"]`: the name of the key that a request came with."""


class RequireKey:
    """Raises `Unauthorized` before the body is read, unless the request has a key or its route is open to all.

    A key is sent as `Authorization: Bearer KEY`, `X-API-Key: KEY`, or `api-key: KEY` as in Azure.

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
        if scope["type"] == "lifespan" or self._is_open(scope):
            return await self._app(scope, receive, send)
        sent = list(_sent(Headers(scope=scope)))
        key = self._keyring.find(sent)
        if key is None:
            raise Unauthorized(_WRONG if sent else _MISSING)
        scope.setdefault("state", {})[KEY_NAME] = key.name
        before = SENDER.set(self._quotas.of(key))
        try:
            await self._app(scope, receive, send)
        finally:
            SENDER.reset(before)


_MISSING = "this server needs an API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
_WRONG = "the API key is not one of this server's"


def _sent(headers: Headers) -> Iterator[bytes]:
    """What may be a key, as it was sent."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token if scheme.lower() == "bearer" else ""
    for value in (bearer, headers.get("x-api-key", ""), headers.get("api-key", "")):
        if key := value.strip():
            yield key.encode("latin-1")
