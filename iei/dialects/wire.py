"""Helpers shared by all dialects: validation of bodies, JSON responses and the headers of results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.json_size import JsonLimits
from iei.dialects.partial import error_headers
from iei.errors import InvalidField, InvalidInput, MalformedBody, UnsupportedMediaType
from iei.requests import Embeddings

M = TypeVar("M", bound=BaseModel)

JSON = "application/json"
WARNING = "x-iei-warning"
"""Header that says what a client should know about the vectors that it gets."""


async def parsed(request: Request, model: type[M]) -> M:
    """The JSON body of `request`, validated.

    Args:
        request: its body is read to the end.
        model: the pydantic model of the body.

    Raises:
        UnsupportedMediaType: the Content-Type is not JSON.
        MalformedBody: the body is not valid JSON.
        InvalidField: a field is missing or invalid, or the body has too many values.
    """
    content_type = media_type(request) or JSON
    if not is_json(content_type):
        raise UnsupportedMediaType(f"the body must be {JSON}, not {content_type[:60]}")
    return await validated(await request.body(), model, json_limits(request))


def json_limits(request: Request) -> JsonLimits:
    """The limits on JSON that the settings make, which the app keeps."""
    limits: JsonLimits = request.app.state.json_limits
    return limits


async def validated(document: bytes, model: type[M], limits: JsonLimits) -> M:
    """Parses and validates JSON with pydantic's own parser, which is several times faster than `json` and a dict.

    Args:
        document: the JSON, of whatever size.
        model: the pydantic model of the document.
        limits: on what it may consist of. They keep the parser, which does not yield, from blocking the event loop.

    Raises:
        MalformedBody: `document` is not valid JSON.
        InvalidField: a field is missing or invalid, or there are too many values.
    """
    await limits.check(document)
    with _faults_named():
        return model.model_validate_json(document)


def validated_strings(values: Mapping[str, str], model: type[M]) -> M:
    """Validates values that come as text: those of a query, or the fields of a form.

    Raises:
        InvalidField: a value is missing or invalid.
    """
    with _faults_named():
        return model.model_validate_strings(values)


@contextmanager
def _faults_named() -> Iterator[None]:
    """Turns pydantic's error into one that says which fields are wrong, and why."""
    try:
        yield
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if any(fault["type"] == "json_invalid" for fault in faults):
            raise MalformedBody(f"the body is not JSON: {faults[0]['msg']}") from None
        raise InvalidField(
            "; ".join(f"{_place(fault['loc'])}: {_fault(fault['msg'])}" for fault in faults),
            field=str(faults[0]["loc"][0]) if faults[0]["loc"] else None,
        ) from None


@contextmanager
def one_kind_of_fault() -> Iterator[None]:
    """Turns `InvalidField` (422) into `InvalidInput` (400), for protocols that report all client errors as 400."""
    try:
        yield
    except InvalidField as error:
        raise InvalidInput(error.message, error.field) from None


def model_of(request: Request, named: str | None = None) -> str | None:
    """The model that a request means: the one that it names, or else the one in its path (`/m/{model}/…`).

    Args:
        request: the request.
        named: what it says in its body. Some clients must name a model and send a placeholder.
    """
    in_path: str | None = getattr(request.state, "model", None)
    return in_path if named in _UNNAMED else named


_UNNAMED = (None, "", "default/not-specified")
"""What stands for no model; the last one is infinity's."""


def media_type(request: Request) -> str:
    """The Content-Type without its parameters, in lower case; empty if the header is missing."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether a media type, as `media_type` returns it, is JSON."""
    return content_type == JSON or content_type.endswith("+json")


def accepted_types(request: Request) -> list[str]:
    """The media types of the Accept header (RFC 9110, section 12.5.1), the most wanted first."""
    weighed = []
    for wanted in request.headers.get("accept", "").lower().split(","):
        name, *parameters = (part.strip() for part in wanted.split(";"))
        quality = next((_weight(part[2:]) for part in parameters if part.startswith("q=")), 1.0)
        weighed.append((-quality, name))
    return [name for quality, name in sorted(weighed, key=lambda each: each[0]) if quality < 0]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _place(loc: tuple[int | str, ...]) -> str:
    """('inputs', 3) → inputs[3]. Tags of unions, written in <>, are dropped: they are not part of the body."""
    parts = [part for part in loc if not str(part).startswith("<")]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return place.lstrip(".") or "body"


def _fault(message: str) -> str:
    """`message` without the prefix that pydantic adds to messages of custom validators."""
    return message.removeprefix("Value error, ")


async def json_list(items: Iterable[Any]) -> bytes:
    """Like `orjson.dumps(items)`, but yields to the event loop after every 256 KiB.

    The tokens of one image take 6 ms to serialise. Arrays of any number of dimensions are written row by row.
    """
    parts: list[bytes] = []
    written = 0
    for item in items:
        if isinstance(item, np.ndarray) and item.ndim > 1:
            parts.append(await json_list(item))
        else:
            parts.append(orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY))
        written += len(parts[-1])
        if written > 256 * 1024:
            written = 0
            await asyncio.sleep(0)
    return b"[" + b",".join(parts) + b"]"


def json_response(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response whose body is `content`, which must be JSON."""
    return Response(content, status, headers, media_type=JSON)


def result_headers(embeddings: Embeddings) -> dict[str, str]:
    """What the headers say of a result: durations in milliseconds, and what a client should know about its vectors.

    The durations have the names of text-embeddings-inference; `x-total-time` is not among them, as the `Trace`
    middleware adds it. `x-iei-warning` has one sentence or several, in ASCII. Partial answers also name what failed.
    """
    timings = {f"x-{name}-time": f"{seconds * 1000:.3f}" for name, seconds in embeddings.timings.items()}
    return {**timings, **warning_header(embeddings.warnings), **error_headers(embeddings.errors.items())}


def warning_header(warnings: Sequence[str]) -> dict[str, str]:
    """What a client should know about its vectors, if there is something."""
    return {WARNING: "; ".join(warnings).encode("ascii", "backslashreplace").decode()} if warnings else {}
