"""What a call of the client may raise: one class per cause."""

from __future__ import annotations

from collections.abc import Mapping


class ClientError(Exception):
    """Base class of the client's errors."""


class InputError(ClientError):
    """Some items can't be embedded, whether the client or the server found that out. No other item was at fault.

    Args:
        errors: index of the item in the call → what is wrong with it. All bad items of one request, and at least one.
    """

    def __init__(self, errors: Mapping[int, str]) -> None:
        self.errors = dict(sorted(errors.items()))
        self.index = next(iter(self.errors))
        """Of the first bad item."""
        self.message = self.errors[self.index]
        """What is wrong with it."""
        super().__init__("; ".join(f"inputs[{index}]: {message}" for index, message in self.errors.items()))


class ServerError(ClientError):
    """The server refused a request as a whole.

    Args:
        status: HTTP status, such as 401, 404, 422, 429 or 503.
        message: in the words of the server.
        request_id: under which the server's log has the request, if it said so.
    """

    def __init__(self, status: int, message: str, request_id: str | None = None) -> None:
        self.status = status
        self.message = message
        self.request_id = request_id
        super().__init__(f"{status}: {message}" + (f" (request {request_id})" if request_id else ""))


class Unreachable(ClientError):
    """There was no answer: nobody listens, the connection broke, or the answer took too long."""
