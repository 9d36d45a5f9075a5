"""Formats of answers that are vectors, chosen by the request's Accept header: JSON, NumPy, Arrow, or bare float32."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.wire import JSON, json_list, result_headers
from iei.errors import NotAcceptable
from iei.requests import Embeddings, Vectors

SHAPE_HEADER = "x-iei-shape"


class Content(NamedTuple):
    """The body of a response, and the headers that belong to it."""

    body: bytes
    headers: Mapping[str, str] = {}


class Format(NamedTuple):
    """One form in which vectors are sent."""

    media_type: str
    write: Callable[[Sequence[Vectors]], Awaitable[Content]]
    description: str
    package: str | None = None
    """The package that writes it, if that is an extra."""


async def vectors_response(embeddings: Embeddings, form: Format) -> Response:
    """The only output of each input, written in `form`. The numbers are finite: the engine has checked that.

    Raises:
        NotAcceptable: the inputs have different numbers of rows, and `form` is for one array.
    """
    content = await form.write([item.vector for item in embeddings.items])
    headers = {**result_headers(embeddings), **content.headers}
    return Response(content.body, headers=headers, media_type=form.media_type)


def accepted(request: Request) -> Format:
    """The format that a request asks for. JSON if it names none of them, as browsers and most clients do.

    Raises:
        NotAcceptable: it needs a package that is not installed.
    """
    form = next((FORMATS[name] for name in _preferred(request.headers.get("accept", "")) if name in FORMATS), _JSON)
    if form.package and find_spec(form.package) is None:
        raise NotAcceptable(
            f"answers of {form.media_type} need the package {form.package}, which this server does not have "
            f"(pip install 'image-embedding-inference[arrow]'); it can answer with {JSON} and {_NPY.media_type}"
        )
    return form


def documented_formats() -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers in these formats, besides JSON."""
    binary = {"type": "string", "format": "binary"}
    others = [form for form in FORMATS.values() if form is not _JSON]
    return {
        200: {"content": {form.media_type: {"schema": {**binary, "description": form.description}} for form in others}}
    }


def _preferred(accept: str) -> list[str]:
    """The media types of an Accept header (RFC 9110, section 12.5.1), the most wanted first."""
    weighed = []
    for wanted in accept.lower().split(","):
        name, *parameters = (part.strip() for part in wanted.split(";"))
        quality = next((_weight(part[2:]) for part in parameters if part.startswith("q=")), 1.0)
        weighed.append((-quality, name))
    return [name for quality, name in sorted(weighed, key=lambda each: each[0]) if quality < 0]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


async def _json(vectors: Sequence[Vectors]) -> Content:
    return Content(await json_list(vectors))


async def _npy(vectors: Sequence[Vectors]) -> Content:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": _shape(vectors)})
    return Content(_joined(header.getvalue(), vectors))


async def _float32(vectors: Sequence[Vectors]) -> Content:
    shape = ",".join(map(str, _shape(vectors)))
    return Content(_joined(b"", vectors), {SHAPE_HEADER: shape})


async def _arrow(vectors: Sequence[Vectors]) -> Content:
    return Content(await asyncio.to_thread(_arrow_stream, vectors))


def _arrow_stream(vectors: Sequence[Vectors]) -> bytes:
    """A stream of one batch; in a thread, for the first import takes a second."""
    import pyarrow as pa

    flat = np.concatenate([each.reshape(-1) for each in vectors])
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat), vectors[0].shape[-1])
    if vectors[0].ndim > 1:
        ends = np.cumsum([len(each) for each in vectors], dtype=np.int32)
        column = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]).astype(np.int32)), column)
    batch = pa.record_batch([column], names=["embedding"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _shape(vectors: Sequence[Vectors]) -> tuple[int, ...]:
    shapes = {each.shape for each in vectors}
    if len(shapes) > 1:
        raise NotAcceptable(
            f"the inputs have different numbers of tokens, which one array can't hold: accept {JSON} or "
            f"{_ARROW.media_type}, or send one input at a time"
        )
    return (len(vectors), *shapes.pop())


def _joined(header: bytes, vectors: Sequence[Vectors]) -> bytes:
    """`header` and the little-endian values of all vectors, one after the other."""
    return b"".join([header, *(np.ascontiguousarray(each, dtype="<f4").data.cast("B") for each in vectors)])


_JSON = Format(JSON, _json, "A list of vectors")
_NPY = Format("application/x-npy", _npy, "A NumPy file: float32 of shape [inputs, values]")
_ARROW = Format(
    "application/vnd.apache.arrow.stream",
    _arrow,
    "An Arrow IPC stream of one batch; the column `embedding` is fixed_size_list<float32>",
    package="pyarrow",
)
_FLOAT32 = Format(
    "application/octet-stream", _float32, f"Little-endian float32, row by row; the header {SHAPE_HEADER} has the shape"
)

FORMATS: Mapping[str, Format] = {form.media_type: form for form in (_JSON, _NPY, _ARROW, _FLOAT32)}
"""Media type → the format."""
