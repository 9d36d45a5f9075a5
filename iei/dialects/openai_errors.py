"""How errors look at `/v1/embeddings`: one body with what the clients of all servers that have this route read."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from pydantic import BaseModel, ConfigDict

from iei.errors import IEIError, ModelNotFound, Overloaded, Unauthorized


class ErrorFields(BaseModel):
    """An error, as in OpenAI's API."""

    message: str
    type: str
    param: str | None
    code: str | None


class EmbeddingsError(BaseModel):
    """The body of an error."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    error: ErrorFields
    message: str
    """The message again, for clients of NVIDIA's NIMs."""
    detail: str
    """The message again, for clients of Imbeddings, Jina and Voyage. They can't read anything but a string."""


def error_body(error: IEIError) -> bytes:
    """The JSON body of an error response."""
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    fields = {"message": error.message, "type": _type_of(error.status), "param": error.field, "code": code}
    return orjson.dumps({"error": fields, "message": error.message, "detail": error.message})


_CODES: dict[type[IEIError], str] = {
    ModelNotFound: "model_not_found",
    Overloaded: "rate_limit_exceeded",
    Unauthorized: "invalid_api_key",
}


def _type_of(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


_TYPES: Mapping[int, str] = {401: "authentication_error", 429: "rate_limit_error"}
"""Status → type, where LiteLLM would take `invalid_request_error` for a 400."""
