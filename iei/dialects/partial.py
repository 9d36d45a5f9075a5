"""Partial answers: how a request says that a bad input is to cost its own vector only, and how answers name those.

Which dialects have them, and in what form: docs/api/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, cast, get_args

import orjson
from pydantic import BeforeValidator
from starlette.requests import Request

from iei.dialects.registry import ErrorBody
from iei.errors import IEIError, InvalidField
from iei.requests import OnError

HEADER = "x-iei-on-error"
"""Says it for the dialects whose requests have no room for a field."""
FAILED = "x-iei-failed"
"""Header of answers: how many inputs have no vector."""
ERRORS = "x-iei-errors"
"""Header of answers: a JSON object, index → message, of the first of them."""
MAX_ERRORS_BYTES = 2048
"""Most bytes of `ERRORS`: nginx gives all headers of a response 4 KiB, and answers 502 where they are more."""

COMPARED = "scores compare the inputs with each other, so that all of them are needed"
ONE_INPUT = "this route takes one input, whose error is the answer"


def _lower(value: object) -> object:
    if value is None:
        raise ValueError('must be a string, "fail" or "null"')
    return value.lower() if isinstance(value, str) else value


OnErrorField = Annotated[OnError | None, BeforeValidator(_lower, json_schema_input_type=OnError)]
"""A field that says what a bad input costs. null is refused: one can't know which of both it is to mean."""


def not_null(value: OnError | None) -> OnError | None:
    """Validator of the field, for requests that compare their inputs."""
    if value == "null":
        raise ValueError(f"can't be null here: {COMPARED}")
    return value


def on_error(request: Request, named: OnError | None = None) -> OnError:
    """What a bad input costs: as the request says in its body, or else in its header.

    Args:
        request: the request.
        named: what its body says, if it does.

    Raises:
        InvalidField: the header has another value.
    """
    return named or word(request.headers.get(HEADER, "fail"), HEADER)


def word(value: str, place: str) -> OnError:
    """What `value` means. Raises InvalidField, which names `place`."""
    if (lower := value.strip().lower()) not in get_args(OnError):
        raise InvalidField(f"{place}: must be {' or '.join(get_args(OnError))}, not {value[:40]!r}", place)
    return cast(OnError, lower)


def check_whole(request: Request, why: str, named: OnError | None = None) -> None:
    """For routes without partial answers.

    Args:
        request: the request.
        why: why this route has none.
        named: what the body says, if it does.

    Raises:
        InvalidField: the request wants one.
    """
    if on_error(request, named) == "null":
        raise InvalidField(f"on_error ({HEADER}) can't be null here: {why}", "on_error" if named else HEADER)


def errors_of(errors: Collection[tuple[int, IEIError]], form: ErrorBody) -> dict[str, Any]:
    """The field `errors` of an answer; nothing if all inputs have a vector.

    Args:
        errors: index of an input, and its error.
        form: of the dialect's errors.
    """
    entries = [orjson.Fragment(with_error({"index": index}, error, form)) for index, error in errors]
    return {"errors": entries} if entries else {}


def with_error(fields: Mapping[str, Any], error: IEIError, form: ErrorBody) -> bytes:
    """A JSON object: `fields`, of which there must be one, and then those that the dialect's errors have."""
    return orjson.dumps(fields)[:-1] + b"," + form(error)[1:]


def error_headers(errors: Collection[tuple[int, IEIError]]) -> dict[str, str]:
    """What the headers say of inputs without a vector: how many there are, and what was wrong with the first ones."""
    if not errors:
        return {}
    named: dict[int, str] = {}
    for index, error in errors:
        if len(json.dumps({**named, index: error.message})) > MAX_ERRORS_BYTES:
            break
        named[index] = error.message
    return {FAILED: str(len(errors)), ERRORS: json.dumps(named)}
