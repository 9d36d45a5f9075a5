"""Formats of answers that are vectors, chosen by the request's Accept header.

JSON, NumPy, Arrow, bare float32; or a line of JSON for each input, as soon as it is done.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.lines import NDJSON, Lines
from iei.dialects.tei_errors import error_body
from iei.dialects.wire import JSON, accepted_types, json_list, result_headers
from iei.errors import NotAcceptable
from iei.requests import Embedding, Input, Options, Vectors
from iei.service import EmbeddingService

SHAPE_HEADER = "x-iei-shape"


class Content(NamedTuple):
    """The body of a response, and the headers that belong to it."""

    body: bytes
    headers: Mapping[str, str] = {}


class Format(NamedTuple):
    """One form in which vectors are sent."""

    media_type: str
    write: Callable[[Sequence[Vectors | None]], Awaitable[Content]] | None
    """Writes all vectors at once. None: they are sent line by line, each as soon as it is there."""
    description: str
    has_null: bool = True
    """Whether it can say that an input has no vector."""


async def vectors_response(
    service: EmbeddingService,
    inputs: Sequence[Input],
    options: Options,
    form: Format,
    *,
    field: str = "inputs",
    names: Sequence[str] | None = None,
) -> Response:
    """The only output of each input, written in `form`. The numbers are finite: the engine has checked that.

    Args:
        service: computes embeddings.
        inputs: what to embed.
        options: what the request says about them.
        form: what `accepted` returned.
        field: the name of the list of inputs.
        names: the name of each input, where they are not all in one list.

    Raises:
        NotAcceptable: `form` is for one array, and the inputs have different numbers of rows, or may lack vectors.
        IEIError: see EmbeddingService.embed.
    """
    if form.write is None:
        return Lines(service.stream(inputs, options, field=field, names=names), _line, error_body)
    if options.on_error == "null" and not form.has_null:
        raise NotAcceptable(
            f"{form.media_type} has no null for the vector of a bad input (on_error): accept one of "
            f"{', '.join(each.media_type for each in FORMATS.values() if each.has_null)}"
        )
    embeddings = await service.embed(inputs, options, field=field, names=names)
    content = await form.write(embeddings.vectors)
    headers = {**result_headers(embeddings), **content.headers}
    return Response(content.body, headers=headers, media_type=form.media_type)


def _line(item: Embedding | None) -> dict[str, Vectors | None]:
    return {"embedding": item and item.vector}


def accepted(request: Request) -> Format:
    """The format that a request asks for. JSON if it names none of them, as browsers and most clients do."""
    return next((FORMATS[name] for name in accepted_types(request) if name in FORMATS), _JSON)


def documented_formats() -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers in these formats, besides JSON."""
    binary = {"type": "string", "format": "binary"}
    others = [form for form in FORMATS.values() if form is not _JSON]
    return {
        200: {"content": {form.media_type: {"schema": {**binary, "description": form.description}} for form in others}}
    }


async def _json(vectors: Sequence[Vectors | None]) -> Content:
    return Content(await json_list(vectors))


async def _npy(vectors: Sequence[Vectors | None]) -> Content:
    shape, rows = _array(vectors)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return Content(b"".join([header.getvalue(), *rows]))


async def _float32(vectors: Sequence[Vectors | None]) -> Content:
    shape, rows = _array(vectors)
    return Content(b"".join(rows), {SHAPE_HEADER: ",".join(map(str, shape))})


def _array(vectors: Sequence[Vectors | None]) -> tuple[tuple[int, ...], list[memoryview]]:
    """The shape of all vectors as one array, and the little-endian values of each."""
    given = [each for each in vectors if each is not None]
    shapes = {each.shape for each in given}
    if len(shapes) > 1:
        raise NotAcceptable(
            f"the inputs have different numbers of tokens, which one array can't hold: accept {JSON} or "
            f"{_ARROW.media_type}, or send one input at a time"
        )
    return (len(given), *shapes.pop()), [np.ascontiguousarray(each, dtype="<f4").data.cast("B") for each in given]


async def _arrow(vectors: Sequence[Vectors | None]) -> Content:
    return Content(await asyncio.to_thread(_arrow_stream, vectors))


def _arrow_stream(vectors: Sequence[Vectors | None]) -> bytes:
    """A stream of one batch; in a thread, for the first import takes a second."""
    import pyarrow as pa  # late: most workers never need it

    batch = pa.record_batch([_arrow_column(vectors)], names=["embedding"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _arrow_column(vectors: Sequence[Vectors | None]) -> Any:
    """A vector for each input, or a list of vectors; where there is none, null."""
    import pyarrow as pa

    given = [each for each in vectors if each is not None]
    if not given:
        return pa.nulls(len(vectors))
    length = given[0].shape[-1]
    missing = np.array([each is None for each in vectors])
    if given[0].ndim == 1:
        zeros = np.zeros(length, np.float32)  # a list of fixed size has room for those that are null, too
        flat = np.concatenate([zeros if each is None else each for each in vectors])
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), length, mask=pa.array(missing))
    rows = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate([each.reshape(-1) for each in given])), length)
    ends = np.cumsum([0, *(0 if each is None else len(each) for each in vectors)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), rows, mask=pa.array(missing))


_JSON = Format(JSON, _json, "A list of vectors")
_NPY = Format("application/x-npy", _npy, "A NumPy file: float32 of shape [inputs, values]", has_null=False)
_ARROW = Format(
    "application/vnd.apache.arrow.stream",
    _arrow,
    "An Arrow IPC stream of one batch; the column `embedding` is fixed_size_list<float32>",
)
_FLOAT32 = Format(
    "application/octet-stream",
    _float32,
    f"Little-endian float32, row by row; the header {SHAPE_HEADER} has the shape",
    has_null=False,
)
_NDJSON = Format(
    NDJSON, None, "A line for each input as soon as it is done, in any order: its index, with its vector or its error"
)

FORMATS: Mapping[str, Format] = {form.media_type: form for form in (_JSON, _NPY, _ARROW, _FLOAT32, _NDJSON)}
"""Media type → the format."""
