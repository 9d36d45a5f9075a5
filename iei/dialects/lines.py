"""Answers as lines of JSON, each sent as soon as its input is done: `Accept: application/x-ndjson`.

Wire format: docs/api/README.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any

import anyio
import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from iei.dialects.partial import with_error
from iei.dialects.registry import ErrorBody
from iei.dialects.wire import JSON, accepted_types, json_list, warning_header
from iei.errors import IEIError, Overloaded
from iei.requests import Embedding, Stream
from iei.telemetry.record import current

NDJSON = "application/x-ndjson"


def accepts_lines(request: Request) -> bool:
    """Whether a request wants lines rather than one JSON document."""
    return next((name for name in accepted_types(request) if name in (JSON, NDJSON)), JSON) == NDJSON


Fields = Callable[[Embedding | None], Mapping[str, Any]]
"""What a line has besides its index: vectors, or null in place of them."""


class Lines(Response):
    """A line for each input, in the order in which they are done.

    What is wrong with the request as a whole is an ordinary error, with its status, as long as nothing has been sent;
    after that it is the last line, the only one without an index.

    Args:
        opening: the answer.
        fields: makes a line.
        form: of the dialect's errors.
        faults: what errors pass before they are formatted.
    """

    media_type = NDJSON

    def __init__(
        self,
        opening: AbstractAsyncContextManager[Stream],
        fields: Fields,
        form: ErrorBody,
        faults: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"x-accel-buffering": "no"})  # nginx would collect lines until it has a page of them
        self._opening, self._fields, self._form, self._faults = opening, fields, form, faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        started = False
        failure: IEIError | None = None
        try:
            with self._faults():
                async with self._opening as stream:
                    # A reader who makes no progress must not hold his place in the queue for ever.
                    with anyio.fail_after(stream.deadline - time.monotonic()):
                        async for index, outcome in stream.items:
                            line = await self._line(index, outcome)
                            if not started:
                                started = True
                                await send(self._head(stream.warnings))
                            await send(_piece(line, more=True))
        except IEIError as error:
            failure = error
        except TimeoutError:
            failure = Overloaded("the inputs were not computed and read in time (IEI_REQUEST_TIMEOUT_S)")
        if failure and not started:
            raise failure
        current().error = failure
        await send(_piece(self._form(failure) + b"\n" if failure else b"", more=False))

    def _head(self, warnings: Sequence[str]) -> Message:
        self.headers.update(warning_header(warnings))
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}

    async def _line(self, index: int, outcome: Embedding | IEIError) -> bytes:
        if isinstance(outcome, IEIError):
            return with_error({"index": index, **self._fields(None)}, outcome, self._form) + b"\n"
        fields = {"index": index, **self._fields(outcome)}
        for name, value in fields.items():
            if isinstance(value, np.ndarray) and value.ndim > 1:  # a vector for each token: that takes milliseconds
                fields[name] = orjson.Fragment(await json_list(value))
        return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _piece(content: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}
