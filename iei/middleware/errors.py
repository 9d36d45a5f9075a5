"""Middleware that turns every `IEIError`, raised by a handler or by other middleware, into a response."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iei.errors import IEIError
from iei.telemetry.record import current

Respond = Callable[[Scope, IEIError], ASGIApp]
"""The scope of a request and its error → the response."""


class AnswerErrors:
    """Responds to an `IEIError` raised by the app or the middleware inside.

    Args:
        app: the ASGI app inside.
        respond: makes the response.
    """

    def __init__(self, app: ASGIApp, respond: Respond) -> None:
        self._app = app
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = False

        async def send_watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_watched)
        except IEIError as error:
            current().error = error
            if started:
                raise  # part of a response has been sent: the connection must be closed
            await self._respond(scope, error)(scope, receive, send)
