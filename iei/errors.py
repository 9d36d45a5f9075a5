"""Error classes: one per cause, each with its HTTP status.

The code that detects a cause raises its class; a dialect only chooses the shape of the response body. Messages are
written for the client: what was wrong, where, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType


class IEIError(Exception):
    """Base class of errors that are reported to clients."""

    status: int = 500
    error_type: str = "Backend"
    retry_after_s: int | None = None
    field: str | None = None
    """Name of the request field that caused the error, if a single field did."""
    headers: Mapping[str, str] = MappingProxyType({})
    """Additional response headers."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field or self.field

    @property
    def message(self) -> str:
        """The text that the client gets."""
        return str(self)


class EmptyInput(IEIError):
    """Nothing to embed: an empty list or an empty string."""

    status, error_type = 400, "Empty"


class InvalidInput(IEIError):
    """An item that can't be embedded: not base64, not an image, too large, or a bad URL."""

    status, error_type = 400, "Validation"


class InvalidInputs(InvalidInput):
    """All invalid items of one request, by index.

    The status and type are those of the items' errors if they all agree, and otherwise 400 `Validation`.

    Args:
        errors: index of the item → its error.
        field: the dialect's name for the list of items; messages begin with it, as in `inputs[3]: …`.
        names: the name of every item, for requests whose items are not all in one list. Replaces `field[index]`.
    """

    def __init__(
        self, errors: Mapping[int, IEIError], field: str = "inputs", names: Sequence[str] | None = None
    ) -> None:
        self.errors = dict(sorted(errors.items()))
        places = {index: names[index] if names else f"{field}[{index}]" for index in self.errors}
        super().__init__("; ".join(f"{places[index]}: {error}" for index, error in self.errors.items()), field)
        # Errors of one kind keep their status and type; a mixture is a validation error.
        kinds = {(error.status, error.error_type) for error in self.errors.values()}
        if len(kinds) == 1:
            self.status, self.error_type = kinds.pop()


class InvalidField(IEIError):
    """A field of the request has a wrong type or a value out of range, or there are too many inputs."""

    status, error_type = 422, "Validation"


class FixedSize(InvalidField):
    """The request keeps images at their own size, but the model accepts only one size."""


class MalformedBody(IEIError):
    """The body is not valid JSON, or not a valid message of the binary format."""

    status, error_type = 400, "Validation"


class BodyTooLarge(IEIError):
    """The body exceeds the size limit. The rest of it is not read, so the connection is closed."""

    status, error_type, headers = 413, "Validation", MappingProxyType({"connection": "close"})


class HeadTooLarge(IEIError):
    """The request line and the headers exceed the size limit."""

    status, error_type, headers = 431, "Validation", MappingProxyType({"connection": "close"})


class HeadTimeout(IEIError):
    """The request line and the headers did not arrive in time."""

    status, error_type, headers = 408, "Validation", MappingProxyType({"connection": "close"})


class UnsupportedMediaType(IEIError):
    """The route does not accept the body's Content-Type or Content-Encoding."""

    status, error_type = 415, "Validation"


class NotAcceptable(IEIError):
    """The answer can't be written in the format that the request's Accept header asks for."""

    status, error_type = 406, "Validation"


class BodyTimeout(IEIError):
    """The body did not arrive in time. The rest of it is not read, so the connection is closed."""

    status, error_type, headers = 408, "Validation", MappingProxyType({"connection": "close"})


class Unauthorized(IEIError):
    """The request has no API key, or none that this server knows."""

    status, error_type, headers = 401, "Unauthorized", MappingProxyType({"www-authenticate": "Bearer"})


class ModelNotFound(IEIError):
    """The request names a model that this server does not serve."""

    status, error_type = 404, "Validation"
    field = "model"


class RouteError(IEIError):
    """The route does not exist, or does not accept the method.

    Args:
        message: the path and method requested, and where the routes are listed.
        status: HTTP status, for example 404 or 405.
        headers: additional response headers.
    """

    error_type = "Validation"

    def __init__(self, message: str, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class InternalError(IEIError):
    """An unexpected exception. Its details are only in the log."""

    def __init__(self) -> None:
        super().__init__("an internal error; the server's log has its traceback")


class Overloaded(IEIError):
    """The queue is full, or the request waited longer than the limit."""

    status, error_type, retry_after_s = 429, "Overloaded", 1


class QuotaExceeded(Overloaded):
    """More inputs than the request's API key may send now.

    Args:
        message: which limit of the key it is.
        retry_after_s: when it may send them, in whole seconds.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unhealthy(IEIError):
    """The engine is not running, can't load the model, or several ended while they ran this input."""

    status, error_type, retry_after_s = 503, "Unhealthy", 5


class TooManyConnections(IEIError):
    """The worker has as many connections as it may have, and none of them is idle."""

    status, error_type, retry_after_s = 503, "Overloaded", 1
    headers = MappingProxyType({"connection": "close"})


class UpstreamFailed(IEIError):
    """Another server, which was to answer this request, did not."""

    status, error_type = 502, "Unhealthy"


class BackendFailed(IEIError):
    """The model failed on this input when it was run in a batch of its own."""

    status, error_type = 424, "Backend"


class StartupError(Exception):
    """The server can't start. The message is one sentence that says what to do; it is shown without a traceback."""
