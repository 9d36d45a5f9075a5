"""What all dialects share: a body checked by its model, vectors written as JSON, timings as headers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from iei.errors import InvalidField, InvalidInput, MalformedBody, UnsupportedMediaType
from iei.service import Embeddings

M = TypeVar("M", bound=BaseModel)

JSON = "application/json"


async def parsed(request: Request, model: type[M]) -> M:
    """The body as a `model`.

    Raises:
        UnsupportedMediaType, MalformedBody, InvalidField: it is not that.
    """
    content_type = media_type(request) or JSON
    if not is_json(content_type):
        raise UnsupportedMediaType(f"the body must be {JSON}, not {content_type[:60]}")
    return validated(await request.body(), model)


def validated(body: bytes, model: type[M]) -> M:
    """JSON as a `model`. Pydantic's own parser reads the bytes: several times faster than `json` and a dict.

    Raises:
        MalformedBody, InvalidField: it is not that.
    """
    try:
        return model.model_validate_json(body)
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
    """For protocols in which all that is wrong with a request is 400."""
    try:
        yield
    except InvalidField as error:
        raise InvalidInput(error.message, error.field) from None


def media_type(request: Request) -> str:
    """Content-Type without its parameters, in lower case; empty where there is none."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    return content_type == JSON or content_type.endswith("+json")


def _place(loc: tuple[int | str, ...]) -> str:
    """('inputs', 3) → inputs[3]. The tags of unions, in <>, are no part of what the client wrote."""
    parts = [part for part in loc if not str(part).startswith("<")]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return place.lstrip(".") or "body"


def _fault(message: str) -> str:
    """Pydantic marks what a validator of ours has said."""
    return message.removeprefix("Value error, ")


async def vectors_response(vectors: Sequence[npt.NDArray[np.float32]], embeddings: Embeddings) -> Response:
    """A bare JSON list of the arrays. Nothing but finite numbers: the engine has checked."""
    return json_response(await json_list(vectors), headers=timing_headers(embeddings))


async def json_list(items: Iterable[Any]) -> bytes:
    """Like `orjson.dumps(items)`, but lets others have the event loop now and then: a picture's tokens take 6 ms.

    Arrays are written row by row, however many dimensions they have.
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
    return Response(content, status, headers, media_type=JSON)


def timing_headers(embeddings: Embeddings) -> dict[str, str]:
    """Milliseconds, as text-embeddings-inference names them (`x-total-time` is the middleware's)."""
    return {f"x-{name}-time": f"{seconds * 1000:.3f}" for name, seconds in embeddings.timings.items()}
