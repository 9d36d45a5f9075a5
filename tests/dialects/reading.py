"""Documents read as the routes read them, for tests without a server."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel

from iei.dialects.json_size import JsonLimits
from iei.dialects.kserve_message import Call, read_call
from iei.dialects.wire import validated

M = TypeVar("M", bound=BaseModel)

LIMITS = JsonLimits(max_inputs=1024, max_ids=1_000_000)


def read_json(document: bytes, model: type[M]) -> M:
    """`document` as a `model`."""
    return asyncio.run(validated(document, model, LIMITS))


def read_message(body: bytes, content_type: str, header_length: str | None, max_elements: int) -> Call:
    """A request of KServe V2."""
    return asyncio.run(read_call(body, content_type, header_length, max_elements, LIMITS))
