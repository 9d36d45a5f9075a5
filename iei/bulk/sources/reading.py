"""Errors of reading an input, as sentences."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from iei.errors import StartupError


@contextmanager
def reading(path: str, what: str = "", *damage: type[Exception]) -> Iterator[None]:
    """Turns what reading `path` raises into StartupError.

    Args:
        path: the file or folder.
        what: what it should be, as in `a Parquet file`.
        damage: what its library raises if it is damaged.
    """
    faults: tuple[type[Exception], ...] = (OSError, *damage)
    try:
        yield
    except FileNotFoundError as error:
        raise StartupError(f"{error.filename or path} does not exist.") from error
    except PermissionError as error:
        raise StartupError(f"{error.filename or path} may not be read by this user (permissions).") from error
    except faults as error:
        if isinstance(error, OSError) and not (what and error.errno is None):  # a library's own has no number
            reason = error.strerror or str(error) or type(error).__name__
            raise StartupError(f"{error.filename or path} can't be read: {reason}.") from error
        raise StartupError(
            f"{path} is damaged, or not {what}: {str(error).strip()}. Replace it, or leave it out."
        ) from error


def utf8(path: str) -> str:
    r"""A path as an id: bytes that are no UTF-8, as names of files may have, are written as `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
