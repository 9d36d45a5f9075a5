"""Forms with files, as browsers, curl's `-F` and `FormData` send them (multipart/form-data, RFC 7578)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from iei.errors import MalformedBody

MAX_FIELDS = 32
"""Most parts that are not files. No dialect has as many."""
PIECE_BYTES = 64 * 1024
"""Most bytes that are parsed without yielding to the event loop. Line breaks in a body are parsed at 10 MB/s or so."""


class File(NamedTuple):
    """A part of a form that has a filename."""

    field: str
    filename: str
    data: bytes


class Form(NamedTuple):
    """The parts of a form, in their order."""

    fields: dict[str, str]
    """Parts without a filename. Of several with one name it is the last."""
    files: list[File]


async def form_of(request: Request, *, max_files: int) -> Form:
    """The parts of the body of `request`. They stay in memory: `BodyLimits` bounds their sum.

    Args:
        request: its Content-Type is multipart/form-data.
        max_files: most files that it may have.

    Raises:
        MalformedBody: the body is not such a form, or has too many parts.
    """
    parser = _InMemory(request.headers, _pieces(request), max_files=max_files, max_fields=MAX_FIELDS)
    try:
        data = await parser.parse()
    except MultiPartException as error:
        raise MalformedBody(f"the body is not multipart/form-data that can be read: {error.message}") from None
    parts = data.multi_items()
    try:
        files = [
            File(name, part.filename or "", await part.read()) for name, part in parts if isinstance(part, UploadFile)
        ]
    finally:
        await data.close()
    return Form({name: part for name, part in parts if isinstance(part, str)}, files)


class _InMemory(MultiPartParser):
    """Starlette's parser would write files of more than 1 MiB to the disk, in a thread."""

    spool_max_size = 0  # to a SpooledTemporaryFile this means no limit


async def _pieces(request: Request) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        for start in range(0, len(chunk), PIECE_BYTES):
            yield chunk[start : start + PIECE_BYTES]
            await asyncio.sleep(0)
