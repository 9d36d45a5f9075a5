"""Middleware that refuses requests before their body is read, while there is no room for any."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class TurnAway:
    """Lets a request with a body through only if there may be room for it.

    Whether there is, its inputs decide, and they must be read and parsed to be counted. A crowd that is far too large
    would cost a worker all its time for that, and what it has accepted would wait.

    Args:
        app: the ASGI app inside.
        check: raises the error to answer with if there is no room for a single input.
    """

    def __init__(self, app: ASGIApp, check: Callable[[], None]) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and scope["method"] == "POST":
            self._check()
        await self._app(scope, receive, send)
