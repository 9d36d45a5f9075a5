"""Middleware that adds a request id and a duration to every response, including those to unexpected errors."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iei.errors import InternalError
from iei.middleware.errors import Respond

log = logging.getLogger(__name__)

_SOUND_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Trace:
    """Echoes `X-Request-Id`, or makes one, and adds `x-total-time` in milliseconds.

    An unhandled exception is logged with the request id, and answered 500.

    Args:
        app: the ASGI app inside.
        respond: makes the response to an unhandled exception.
    """

    def __init__(self, app: ASGIApp, respond: Respond) -> None:
        self._app = app
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SOUND_ID.fullmatch(given) else uuid.uuid4().hex
        answered = False

        async def send_traced(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-total-time"] = f"{(time.perf_counter() - started) * 1000:.3f}"
            await send(message)

        try:
            await self._app(scope, receive, send_traced)
        except Exception:
            log.exception("request %s failed: %s %r", request_id, scope["method"], scope["path"])
            if answered:
                raise  # close the connection, so that the client notices that the response is incomplete
            await self._respond(scope, InternalError())(scope, receive, send_traced)
