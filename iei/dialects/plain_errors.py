"""Errors that are one sentence, under the name `error` or `detail`: the form of most dialects."""

from __future__ import annotations

import orjson
from pydantic import BaseModel

from iei.errors import IEIError


class ErrorSentence(BaseModel):
    """The body of an error."""

    error: str


class DetailSentence(BaseModel):
    """The body of an error."""

    detail: str


class BadSentence(ErrorSentence):
    """What is wrong with an input that has no vector."""

    index: int


class BadDetail(DetailSentence):
    """What is wrong with an input that has no vector."""

    index: int


def as_error(error: IEIError) -> bytes:
    """The JSON body of an error response, as `ErrorSentence`."""
    return orjson.dumps({"error": error.message})


def as_detail(error: IEIError) -> bytes:
    """The JSON body of an error response, as `DetailSentence`."""
    return orjson.dumps({"detail": error.message})
