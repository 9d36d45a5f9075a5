"""What a setting is: a field of a group, with the variables that set it and its place in the documentation."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

Section = Literal[
    "Models",
    "Server",
    "Access",
    "Computing",
    "Vectors",
    "Requests",
    "Limits on what is sent",
    "URLs",
    "Decoding",
    "Operation",
]
"""Headings of docs/configuration.md, in their order."""
SECTIONS: tuple[Section, ...] = get_args(Section)


def setting(section: Section, default: Any, *variables: str, form: str = "", **constraints: Any) -> Any:
    """A pydantic field that is a setting.

    Args:
        section: the section of docs/configuration.md that lists it.
        default: its default value.
        *variables: the environment variables that set it, the preferred one first.
        form: what its `pattern` means, in words that end "must be …".
        **constraints: bounds and patterns, as for `pydantic.Field`.
    """
    extra: JsonDict = {"section": section, "variables": list(variables), "form": form}
    return Field(default, json_schema_extra=extra, **constraints)


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The words that a setting may be set to; none if it takes anything else."""
    if field.annotation in (bool, bool | None):
        return ("true", "false")
    return tuple(str(word) for word in get_args(field.annotation)) if get_origin(field.annotation) is Literal else ()


class Group(BaseModel):
    """Settings that are passed together to one component. Immutable."""

    model_config = ConfigDict(
        frozen=True,
        use_attribute_docstrings=True,
        extra="forbid",
        protected_namespaces=(),
        validate_default=True,
        defer_build=True,  # an engine needs one of the groups, and waits for its imports
    )

    @field_validator("*", mode="before")
    @classmethod
    def _in_any_case(cls, value: object, info: ValidationInfo) -> object:
        """Words are read in any case."""
        if not isinstance(value, str) or info.field_name is None:
            return value
        return value.lower() if value.lower() in choices(cls.model_fields[info.field_name]) else value

    def is_set(self, name: str) -> bool:
        """Whether a variable or a flag sets this setting."""
        return name in self.model_fields_set
