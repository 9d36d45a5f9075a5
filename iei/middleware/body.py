"""Request bodies within limits, and no work for clients that have gone."""

from __future__ import annotations

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iei.errors import BodyTimeout, BodyTooLarge


class BodyLimits:
    """Bounds a body's size and the time it may take to arrive; the handler that reads it gets the error.

    uvicorn bounds neither. The size is refused by the header where there is one, before a byte is read.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced = Headers(scope=scope).get("content-length", "")
        received = 0
        complete = False
        deadline = anyio.current_time() + self._timeout_s

        async def limited() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()
            if announced.isdecimal() and int(announced) > self._max_bytes:
                raise self._too_large(f"{announced} bytes")
            with anyio.move_on_at(deadline):
                message = await receive()
                received += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if received > self._max_bytes:
                    raise self._too_large(f"more than {received} bytes")
                return message
            raise BodyTimeout(f"the body did not arrive within {self._timeout_s:g} s (IEI_BODY_TIMEOUT_S)")

        await self._app(scope, limited, send)

    def _too_large(self, size: str) -> BodyTooLarge:
        return BodyTooLarge(f"the body has {size}, over the limit of {self._max_bytes} (IEI_MAX_BODY_BYTES)")


class CancelWhenGone:
    """Cancels the handler when its client disconnects: uvicorn lets it run on for nobody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def watch() -> None:
            if (await receive())["type"] == "http.disconnect":
                tasks.cancel_scope.cancel()

        async def watched() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                tasks.start_soon(watch)
            return message

        async with anyio.create_task_group() as tasks:
            await self._app(scope, watched, send)
            tasks.cancel_scope.cancel()
