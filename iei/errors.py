"""The kinds of error, one class per cause, and the one table kind → HTTP status.

Whoever knows the cause raises it; dialects only choose the shape of the body. Messages are for the person who called:
what was wrong, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class IEIError(Exception):
    """Base of every error that a client may be told about."""

    status: int = 500
    error_type: str = "Backend"
    retry_after_s: int | None = None
    field: str | None = None
    """Name of the request's field that is to blame, where it is one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field or self.field

    @property
    def message(self) -> str:
        return str(self)


class EmptyInput(IEIError):
    """Nothing to embed: an empty list or an empty string."""

    status, error_type = 400, "Empty"


class InvalidInput(IEIError):
    """An item that can't be embedded: not base64, not an image, too large, a bad URL."""

    status, error_type = 400, "Validation"


class InvalidInputs(InvalidInput):
    """All bad items of one request, by index.

    `field` is what the dialect calls the list: `inputs[3]: …`. Items that are in no one list have `names` instead.
    """

    def __init__(
        self, errors: Mapping[int, IEIError], field: str = "inputs", names: Sequence[str] | None = None
    ) -> None:
        self.errors = dict(sorted(errors.items()))
        places = {index: names[index] if names else f"{field}[{index}]" for index in self.errors}
        super().__init__("; ".join(f"{places[index]}: {error}" for index, error in self.errors.items()), field)
        # One kind of trouble keeps its own kind; a mixture is a validation error.
        kinds = {(error.status, error.error_type) for error in self.errors.values()}
        if len(kinds) == 1:
            self.status, self.error_type = kinds.pop()


class InvalidField(IEIError):
    """A field of the request has a wrong type or a value out of range, or there are too many inputs."""

    status, error_type = 422, "Validation"


class MalformedBody(IEIError):
    """The body is not the JSON (or the binary form) that it claims to be."""

    status, error_type = 400, "Validation"


class BodyTooLarge(IEIError):
    status, error_type = 413, "Validation"


class UnsupportedMediaType(IEIError):
    status, error_type = 415, "Validation"


class BodyTimeout(IEIError):
    """The client stopped sending its body."""

    status, error_type = 408, "Validation"


class ModelNotFound(IEIError):
    status, error_type = 404, "Validation"
    field = "model"


class Overloaded(IEIError):
    """More is waiting than may wait, or this request waited longer than it may."""

    status, error_type, retry_after_s = 429, "Overloaded", 1


class Unhealthy(IEIError):
    """The engine is not there, can't load the model, or was lost twice while it ran this input."""

    status, error_type, retry_after_s = 503, "Unhealthy", 5


class BackendFailed(IEIError):
    """The model failed on this input, alone."""

    status, error_type = 424, "Backend"


class StartupError(Exception):
    """The server can't start. The message is one sentence that says what to do; nobody needs its traceback."""
