"""What may become of hostile input besides a result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def or_refused(*errors: type[Exception], longest: int = 300, without: str | None = None) -> Iterator[None]:
    """A block that works, or ends with one of `errors`: nothing else may come out of it.

    Args:
        *errors: the kinds of errors.
        longest: characters in the message, which must not repeat all that was sent.
        without: what the message must not have in it, in any case of its letters.
    """
    message = ""
    try:
        yield
    except errors as error:
        message = str(error)
    assert len(message) <= longest
    assert without is None or without.lower() not in message.lower()
