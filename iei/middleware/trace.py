"""Middleware that keeps the record of every request, and adds its id and duration to every response."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iei.errors import InternalError
from iei.middleware.errors import Respond
from iei.middleware.routes import RouteNames
from iei.telemetry.ids import request_id
from iei.telemetry.record import RECORD, Observer, Record, carried, finish

log = logging.getLogger(__name__)


class Trace:
    """Echoes `X-Request-Id`, or makes one, adds `x-total-time` in milliseconds, and tells observers of the request.

    An unhandled exception is logged with the request id, and answered 500.

    Args:
        app: the ASGI app inside.
        respond: makes the response to an unhandled exception.
        route_of: tells the route of a request.
        observers: are handed the record of each request, once its response has been sent.
    """

    def __init__(self, app: ASGIApp, respond: Respond, route_of: RouteNames, observers: Sequence[Observer]) -> None:
        self._app = app
        self._respond = respond
        self._route_of = route_of
        self._observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope)
        record = Record(id=request_id(given.get("x-request-id", "")), method=scope["method"], carried=carried(given))

        async def send_traced(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                if record.is_computed:
                    record.reach("serialise")
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = record.id
                headers["x-total-time"] = f"{(time.perf_counter() - record.started) * 1000:.3f}"
            else:
                record.sent_bytes += len(message.get("body", b""))
            await send(message)

        before = RECORD.set(record)
        try:
            await self._app(scope, receive, send_traced)
        except Exception:
            log.exception("request %s failed: %s %r", record.id, scope["method"], scope["path"])
            record.error = InternalError()
            if record.status:
                raise  # close the connection, so that the client notices that the response is incomplete
            await self._respond(scope, record.error)(scope, receive, send_traced)
        finally:
            RECORD.reset(before)
            record.route, record.dialect = self._route_of(scope)
            finish(record, self._observers)
