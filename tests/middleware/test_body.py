"""Bodies unpacked and within limits, and handlers that end when their client has gone."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from collections.abc import Callable

import pytest
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iei.errors import BodyTooLarge, IEIError, MalformedBody, UnsupportedMediaType
from iei.middleware.body import PIECE_BYTES, BodyLimits, CancelWhenGone, Unpack
from iei.settings import BodySettings

GONE: Message = {"type": "http.disconnect"}
PHOTO = os.urandom(3 * PIECE_BYTES // 2)


def uploaded(body: bytes, chunk_bytes: int = 2**16) -> list[Message]:
    """As uvicorn hands a body on: the last message may be an empty one."""
    chunks = [body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes)]
    return [
        {"type": "http.request", "body": chunk, "more_body": more}
        for chunk, more in [*((c, True) for c in chunks), (b"", False)]
    ]


def received(wrap: Callable[[ASGIApp], ASGIApp], messages: list[Message], **headers: str) -> list[bytes]:
    """The bodies that an app behind the middleware reads when it gets `messages`, and then waits for ever."""
    bodies: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        bodies.append(await Request(scope, receive).body())

    async def receive() -> Message:
        return messages.pop(0) if messages else await asyncio.Future()

    async def send(message: Message) -> None: ...

    scope = {
        "type": "http",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(asyncio.wait_for(wrap(app)(scope, receive, send), 20))
    return bodies


def limited(app: ASGIApp) -> ASGIApp:
    return Unpack(BodyLimits(app, BodySettings(max_body_bytes=2 * PIECE_BYTES, body_timeout_s=20)))


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
@pytest.mark.parametrize("body", [b"{}", b"", PHOTO, bytes(2 * PIECE_BYTES)], ids=["small", "empty", "noise", "nulls"])
def test_packed_bodies_are_unpacked(encoding: str, pack: Callable[[bytes], bytes], body: bytes) -> None:
    assert received(limited, uploaded(pack(body)), content_encoding=encoding) == [body]


def test_a_bomb_does_not_go_off() -> None:
    bomb = uploaded(gzip.compress(bytes(100 * PIECE_BYTES), 1))
    messages = len(bomb)
    with pytest.raises(BodyTooLarge, match="IEI_MAX_BODY_BYTES"):
        received(limited, bomb, content_encoding="gzip")
    assert len(bomb) == messages - 1, "one message held too much already"


@pytest.mark.parametrize(
    ("body", "encoding", "error"),
    [
        (b"{}", "gzip", MalformedBody),
        (b"", "gzip", MalformedBody),
        (gzip.compress(PHOTO)[:-9], "gzip", MalformedBody),
        (gzip.compress(b"{}") + b"more", "gzip", MalformedBody),
        (gzip.compress(b"{}"), "br", UnsupportedMediaType),
        (gzip.compress(b"{}"), "gzip, gzip", UnsupportedMediaType),
    ],
    ids=["plain", "empty", "cut", "followed", "brotli", "twice"],
)
def test_what_can_not_be_unpacked_is_refused(body: bytes, encoding: str, error: type[IEIError]) -> None:
    with pytest.raises(error):
        received(limited, uploaded(body), content_encoding=encoding)


def test_a_client_that_leaves_while_it_uploads_ends_the_handler_and_is_no_error() -> None:
    assert received(CancelWhenGone, [*uploaded(PHOTO)[:3], GONE]) == []


def test_a_client_that_leaves_while_it_waits_ends_the_handler() -> None:
    ended = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        try:
            await asyncio.Future()
        finally:
            ended.append(True)

    received(lambda _: CancelWhenGone(app), [*uploaded(b"{}"), GONE])
    assert ended


def test_what_a_handler_raises_stays_what_it_is() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        received(lambda _: CancelWhenGone(app), uploaded(b"{}"))
