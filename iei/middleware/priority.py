"""Middleware that gives every request its priority."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from iei.access.priority import PriorityRule
from iei.priority import PRIORITY
from iei.telemetry.record import current


class Prioritize:
    """Sets `PRIORITY`, which the check of API keys has set to the highest that the key may have.

    Args:
        app: the ASGI app inside.
        rule: decides.
    """

    def __init__(self, app: ASGIApp, rule: PriorityRule) -> None:
        self._app = app
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        priority = self._rule.of(Headers(scope=scope), scope["path"], at_most=PRIORITY.get())
        current().priority = priority
        before = PRIORITY.set(priority)
        try:
            await self._app(scope, receive, send)
        finally:
            PRIORITY.reset(before)
