"""Types of fields in the requests of all dialects."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticUseDefault

T = TypeVar("T")

ListOf = Annotated[list[T], Field(fail_fast=True)]
"""A client's list: its first element of a wrong type ends the checking.

Pydantic describes each of them otherwise, on the event loop: 8 s and 1.6 GiB for `[1,1,1,…]` of 4 MiB.
"""


def one_or_more(value: object) -> object:
    """What a field's validator makes of a string where a list of them is wanted."""
    if not isinstance(value, str | list):
        raise ValueError("a string is wanted, or a list of them")
    return [value] if isinstance(value, str) else value


Strings = Annotated[ListOf[str], BeforeValidator(one_or_more, json_schema_input_type=str | list[str])]
"""A list of strings, or one alone."""

_TAGS: dict[type, str] = {str: "<one>", list: "<many>"}

OneOrMore = Annotated[
    Annotated[str, Tag("<one>")] | Annotated[ListOf[str], Tag("<many>")],
    Discriminator(
        lambda value: _TAGS.get(type(value)),
        custom_error_type="string_or_list",
        custom_error_message="a string is wanted, or a list of them",
    ),
]
"""The same, but one alone stays one."""

AnyCase = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
"""Marks a field whose words may be written in any case."""


def _default_for_null(value: object) -> object:
    if value is None:
        raise PydanticUseDefault
    return value


OrNull = BeforeValidator(_default_for_null)
"""Marks a field that null leaves out."""
