"""What all dialects share: a body checked by its model, vectors written as JSON, timings as headers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from iei.errors import InvalidField, MalformedBody, UnsupportedMediaType
from iei.service import Embeddings

M = TypeVar("M", bound=BaseModel)


async def parsed(request: Request, model: type[M]) -> M:
    """The body as a `model`. Pydantic's own parser reads the bytes: several times faster than `json` and a dict.

    Raises:
        UnsupportedMediaType, MalformedBody, InvalidField: it is not that.
    """
    content_type = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise UnsupportedMediaType(f"the body must be application/json, not {content_type[:60] or 'untyped'}")
    body = await request.body()
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if any(fault["type"] == "json_invalid" for fault in faults):
            raise MalformedBody(f"the body is not JSON: {faults[0]['msg']}") from None
        raise InvalidField("; ".join(f"{_place(fault['loc'])}: {fault['msg']}" for fault in faults[:20])) from None


def _place(loc: tuple[int | str, ...]) -> str:
    """('inputs', 3) → inputs[3]"""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return place.lstrip(".") or "body"


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body with `parsed`."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


async def vectors_response(vectors: Sequence[npt.NDArray[np.float32]], embeddings: Embeddings) -> Response:
    """A bare JSON list of the arrays. Nothing but finite numbers: the engine has checked."""
    return json_response(await json_list(vectors), headers=timing_headers(embeddings))


async def json_list(items: Sequence[Any]) -> bytes:
    """Like `orjson.dumps(items)`, but lets others have the event loop between items: a picture's tokens take 6 ms."""
    parts: list[bytes] = []
    written = 0
    for item in items:
        parts.append(orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY))
        written += len(parts[-1])
        if written > 256 * 1024:
            written = 0
            await asyncio.sleep(0)
    return b"[" + b",".join(parts) + b"]"


def json_response(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, status, headers, media_type="application/json")


def timing_headers(embeddings: Embeddings) -> dict[str, str]:
    """Milliseconds, as text-embeddings-inference names them (`x-total-time` is the middleware's)."""
    return {f"x-{name}-time": f"{seconds * 1000:.3f}" for name, seconds in embeddings.timings.items()}
