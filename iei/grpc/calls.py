"""From a method of a service to grpcio's handler of it: messages decoded, callers checked, errors as status codes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from iei.access.headers import Sender
from iei.access.priority import PriorityRule
from iei.access.quotas import SENDER
from iei.errors import IEIError, InternalError
from iei.grpc.messages import decode, encode
from iei.priority import PRIORITY
from iei.telemetry.ids import request_id
from iei.telemetry.record import RECORD, Observer, Record, carried, current, finish

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a method."""

    fields: Mapping[str, Any]
    """Of the response message."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Sent after it."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a service: one request message, one response message."""

    request: str
    """Its message in `iei.grpc.messages`."""
    response: str
    answer: Callable[[Any], Awaitable[Reply]]
    is_guarded: bool = True
    """False: it needs no API key, as health routes over HTTP."""


_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,  # grpcio's own code for messages that are too large
    422: grpc.StatusCode.INVALID_ARGUMENT,
    424: grpc.StatusCode.INTERNAL,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""HTTP status of an IEIError → gRPC status."""

MAX_DETAILS_BYTES = 2000
"""Longest error message, in UTF-8. Each byte may take three on the wire; clients refuse more than 8 KiB of metadata."""


def handlers(
    service: str,
    methods: Mapping[str, Method],
    sender: Sender,
    rule: PriorityRule,
    max_elements: int,
    observers: Sequence[Observer],
) -> grpc.GenericRpcHandler:
    """The handlers of a service.

    Args:
        service: its full name.
        methods: name → method.
        sender: of calls to guarded methods.
        rule: decides their priority.
        max_elements: of a request, see `iei.grpc.messages.decode`.
        observers: are handed the record of each call that has ended.
    """
    return grpc.method_handlers_generic_handler(
        service,
        {
            # No deserializer: grpcio would answer what it raises with INTERNAL.
            name: grpc.unary_unary_rpc_method_handler(
                _handler(f"/{service}/{name}", method, sender, rule, max_elements, observers)
            )
            for name, method in methods.items()
        },
    )


def _handler(
    path: str,
    method: Method,
    sender: Sender,
    rule: PriorityRule,
    max_elements: int,
    observers: Sequence[Observer],
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def answer(metadata: Mapping[str, str], content: bytes) -> Reply:
        if method.is_guarded:
            allowed = sender(metadata)
            SENDER.set(allowed.quota)  # of this call alone: each is a task of its own
            priority = rule.of(metadata, path, at_most=allowed.priority)
            PRIORITY.set(priority)
            current().priority = priority
        return await method.answer(decode(method.request, content, max_elements))

    async def handle(content: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        metadata = _headers(context.invocation_metadata() or ())
        record = Record(request_id(metadata.get("x-request-id", "")), method="POST", route=path, dialect="gRPC")
        record.received_bytes, record.carried = len(content), carried(metadata)
        RECORD.set(record)  # of this call alone: each is a task of its own
        try:
            reply = await answer(metadata, content)
            context.set_trailing_metadata((("x-request-id", record.id), *reply.metadata.items()))
            encoded = encode(method.response, reply.fields)
            if record.is_computed:
                record.reach("serialise")
            record.sent_bytes, record.status = len(encoded), 200
            return encoded
        except IEIError as error:
            failure = record.error = error
        except Exception:
            log.exception("request %s failed: %s", record.id, path)
            failure = record.error = InternalError()
        finally:
            if record.error:
                record.status = record.error.status
            finish(record, observers)
        hint = {"retry-after": str(failure.retry_after_s)} if failure.retry_after_s else {}
        trailing = (("x-request-id", record.id), *hint.items())
        # Raises, which is how grpcio ends a call.
        await context.abort(_code(failure), details(failure.message), trailing)
        raise AssertionError("abort returned")

    return handle


def _headers(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """What HTTP calls headers, by their names in lower case; without binary ones."""
    return {name: value for name, value in metadata if isinstance(value, str) and value.isascii()}


def _code(error: IEIError) -> grpc.StatusCode:
    return _CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT if error.status < 500 else grpc.StatusCode.UNKNOWN)


def details(message: str) -> str:
    """An error message, cut to what fits in metadata. Those that name every bad input can be much longer."""
    encoded = message.encode()
    if len(encoded) <= MAX_DETAILS_BYTES:
        return message
    return encoded[:MAX_DETAILS_BYTES].decode(errors="ignore") + " …"
