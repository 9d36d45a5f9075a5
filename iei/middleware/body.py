"""Middleware that limits and decompresses request bodies, and cancels requests of disconnected clients."""

from __future__ import annotations

import asyncio
import zlib

import anyio
import anyio.lowlevel
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iei.errors import BodyTimeout, BodyTooLarge, MalformedBody, UnsupportedMediaType
from iei.settings import BodySettings
from iei.telemetry.record import current

PIECE_BYTES = 2**20
"""Most bytes that are decompressed at a time."""


class BodyLimits:
    """Limits the size of a body and the time in which it must arrive. The error is raised when the body is read.

    uvicorn limits neither. If there is a Content-Length, the size is checked before any byte is read.
    """

    def __init__(self, app: ASGIApp, settings: BodySettings) -> None:
        self._app = app
        self._max_bytes = settings.max_body_bytes
        self._timeout_s = settings.body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced = Headers(scope=scope).get("content-length", "")
        record = current()
        complete = False
        deadline = asyncio.get_running_loop().time() + self._timeout_s

        async def limited() -> Message:
            nonlocal complete
            if complete:
                return await receive()
            if announced.isdecimal() and int(announced) > self._max_bytes:
                raise self._too_large(f"{announced} bytes")
            try:
                async with asyncio.timeout_at(deadline) as timeout:
                    message = await receive()
            except TimeoutError:
                if not timeout.expired():
                    raise
                raise BodyTimeout(
                    f"the body did not arrive within {self._timeout_s:g} s (IEI_BODY_TIMEOUT_S)"
                ) from None
            record.received_bytes += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if record.received_bytes > self._max_bytes:
                raise self._too_large(f"more than {record.received_bytes} bytes")
            if complete:
                record.reach("receive")
            return message

        await self._app(scope, limited, send)

    def _too_large(self, size: str) -> BodyTooLarge:
        return BodyTooLarge(f"the body has {size}, over the limit of {self._max_bytes} (IEI_MAX_BODY_BYTES)")


class Unpack:
    """Decompresses gzip and deflate bodies piece by piece. `BodyLimits`, inside it, limits the decompressed size."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        encoding = Headers(scope=scope).get("content-encoding", "") if scope["type"] == "http" else ""
        if encoding in ("", "identity"):
            return await self._app(scope, receive, send)
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: the header may be gzip's or zlib's
        more_body, full = True, False

        async def unpacked() -> Message:
            nonlocal more_body, full
            if encoding not in ("gzip", "deflate"):
                raise UnsupportedMediaType(f"Content-Encoding may be gzip or deflate, and not {encoding[:60]!r}")
            if full:
                packed = unpacker.unconsumed_tail
                await asyncio.sleep(0)  # a piece takes 2 ms: yield to the event loop in between
            else:
                message = await receive()
                if message["type"] != "http.request":
                    return message
                packed, more_body = message.get("body", b""), message.get("more_body", False)
            try:
                piece = unpacker.decompress(packed, PIECE_BYTES)
            except zlib.error as error:
                raise MalformedBody(f"the body is not {encoding}: {error}") from None
            full = len(piece) == PIECE_BYTES  # then there may be more output for the same input
            if unpacker.unused_data or not (more_body or full or unpacker.eof):
                raise MalformedBody(f"the body is not {encoding}, whole and alone")
            return {"type": "http.request", "body": piece, "more_body": more_body or full}

        await self._app(scope, unpacked, send)


class CancelWhenGone:
    """Cancels the handler when its client disconnects; uvicorn would let it run to its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        watcher: asyncio.Task[None] | None = None

        async def watch() -> None:
            if (await receive())["type"] == "http.disconnect":
                client.cancel()

        async def watched() -> Message:
            nonlocal watcher
            message = await receive()
            if message["type"] == "http.disconnect":
                client.cancel()
                await anyio.lowlevel.checkpoint()  # cancels the handler here, before Starlette raises ClientDisconnect
            elif not message.get("more_body", False):
                watcher = asyncio.create_task(watch())
            return message

        # Not a task group, which would wrap exceptions of the handler in an ExceptionGroup.
        with anyio.CancelScope() as client:
            try:
                await self._app(scope, watched, send)
            finally:
                if watcher:
                    watcher.cancel()
