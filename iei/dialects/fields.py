"""Field types shared by the request models of all dialects."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticUseDefault

T = TypeVar("T")

ListOf = Annotated[list[T], Field(fail_fast=True)]
"""A list in a request. Validation stops at the first element of a wrong type.

By default pydantic reports every such element, which blocks the event loop: 8 s and 1.6 GiB for 4 MiB of `[1,1,1,…]`.
"""


def one_or_more(value: object) -> object:
    """Validator that wraps a single string in a list.

    Raises:
        ValueError: `value` is neither a string nor a list.
    """
    if not isinstance(value, str | list):
        raise ValueError("must be a string or a list of strings")
    return [value] if isinstance(value, str) else value


Strings = Annotated[ListOf[str], BeforeValidator(one_or_more, json_schema_input_type=str | list[str])]
"""A list of strings, or a single string, which becomes a list of one."""

_TAGS: dict[type, str] = {str: "<one>", list: "<many>"}

OneOrMore = Annotated[
    Annotated[str, Tag("<one>")] | Annotated[ListOf[str], Tag("<many>")],
    Discriminator(
        lambda value: _TAGS.get(type(value)),
        custom_error_type="string_or_list",
        custom_error_message="must be a string or a list of strings",
    ),
]
"""A list of strings or a single string, which stays a string."""

AnyCase = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
"""Marks a field whose values are case-insensitive."""


def _default_for_null(value: object) -> object:
    if value is None:
        raise PydanticUseDefault
    return value


OrNull = BeforeValidator(_default_for_null)
"""Marks a field in which null means the default."""
