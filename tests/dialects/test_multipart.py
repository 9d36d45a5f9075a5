"""Forms are read from memory, in pieces, whatever the pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from tempfile import SpooledTemporaryFile

import pytest
from starlette.requests import Request
from starlette.types import Message

from iei.dialects.multipart import PIECE_BYTES, File, Form, form_of

BODY = (
    b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nK\xc3\xa4se\r\n'
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n%b\r\n'
    b'--x\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n'
    b"--x--\r\n"
)
PICTURE = bytes(range(256)) * 12_000 + b"\r\n--"  # 3 MB, and its end begins like a boundary


def read(chunks: Sequence[bytes]) -> Form:
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    left = iter(messages)

    async def receive() -> Message:
        return next(left)

    scope = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=x")]}
    return asyncio.run(form_of(Request(scope, receive), max_files=10))


@pytest.mark.parametrize("size", [1000, PIECE_BYTES, PIECE_BYTES + 1, len(PICTURE) * 2])
def test_parts_are_the_same_however_the_body_is_cut(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_disk(file: SpooledTemporaryFile[bytes]) -> None:
        pytest.fail("a part was written to the disk")

    monkeypatch.setattr(SpooledTemporaryFile, "rollover", to_disk)
    body = BODY.replace(b"%b", PICTURE)
    form = read([body[start : start + size] for start in range(0, len(body), size)])
    assert form == Form({"text": "Käse"}, [File("image", "a.jpg", PICTURE), File("image", "", b"")])


def test_others_get_the_event_loop_while_a_large_form_is_parsed() -> None:
    async def turns() -> int:
        count = 0
        body = BODY.replace(b"%b", PICTURE)
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Message:
            return next(messages)

        scope = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=x")]}
        reading = asyncio.create_task(form_of(Request(scope, receive), max_files=10))
        while not reading.done():
            await asyncio.sleep(0)
            count += 1
        return count

    assert asyncio.run(turns()) > len(PICTURE) // PIECE_BYTES
