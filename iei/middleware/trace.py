"""A name and a duration for every response, those to requests that meet a bug included."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

_SOUND_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Trace:
    """Echoes `X-Request-Id`, or makes one, and adds `x-total-time` in milliseconds.

    What a handler raises that it should not is logged under that name, and answered by `on_bug`.
    """

    def __init__(self, app: ASGIApp, on_bug: Callable[[Scope], ASGIApp]) -> None:
        self._app = app
        self._on_bug = on_bug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
                raise  # the connection has to be closed, so that nobody takes half an answer for one
            await self._on_bug(scope)(scope, receive, send_traced)
