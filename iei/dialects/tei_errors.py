"""How errors look on the routes of IEI and text-embeddings-inference: one body with what clients of both read."""

from __future__ import annotations

import orjson
from pydantic import BaseModel, ConfigDict

from iei.errors import IEIError


class EmbedError(BaseModel):
    """The body of an error."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    error: str
    error_type: str
    """`Empty`, `Validation`, `Unauthorized`, `Overloaded`, `Unhealthy` or `Backend`."""
    detail: str
    """The message again, for clients of the original IEI."""


def error_body(error: IEIError) -> bytes:
    """The JSON body of an error response."""
    return orjson.dumps({"error": error.message, "error_type": error.error_type, "detail": error.message})
