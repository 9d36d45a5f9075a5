"""OpenAPI descriptions of the routes of all dialects: bodies, examples and errors."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from functools import cache, cached_property
from typing import Any, cast

from fastapi import Path
from pydantic import BaseModel

from iei.dialects.wire import JSON
from iei.models.spec import Modality

_PICTURE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQMAAAD+wSzIAAAABlBMVEXIPCgoWqD5V/"
    "YuAAAAGElEQVR42mNgYGBkYmJiYeJgEmBSYHIAAAHTAIw5zihvAAAAAElFTkSuQmCC"
)
"""A PNG image of 8×8 pixels."""

SAMPLES: Mapping[Modality, tuple[str, str]] = {
    "image": (_PICTURE, _PICTURE),
    "text": ("A cat sits on a mat", "A kitten is lying on a rug"),
}
"""Two valid inputs of each modality, for examples that can be executed."""


def documented(
    model: type[BaseModel], examples: Mapping[str, object], binary: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body with `parsed`.

    Args:
        model: the model of the JSON body.
        examples: summary → example body.
        binary: other media types that the route accepts → description of their content.
    """
    return cast(dict[str, Any], _RequestBody(model, examples, binary or {}))


def in_path(example: str) -> Any:
    """A parameter in the path of a route, with a value for which the route answers."""
    return Path(openapi_examples={example: {"value": example}})


def errors_as(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a dialect's routes: all errors have the same body.

    Without it FastAPI documents its own validation error, which IEI never sends.

    Args:
        model: the model of the error body.
    """
    return {"default": {"model": model, "description": "An error"}}


def with_keys(openapi: Callable[[], dict[str, Any]], open_routes: Container[tuple[str, str]]) -> Callable[[], Any]:
    """An app's description that says which routes need a key: /docs then has a field for it.

    Args:
        openapi: gives the description without.
        open_routes: method and path of those that need none.
    """

    @cache
    def described() -> dict[str, Any]:
        document = openapi()
        document["components"]["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if (method.upper(), path) not in open_routes:
                    operation["security"] = [{_KEY: []}]
        return document

    return described


_KEY = "API key"


class _RequestBody(Mapping[str, Any]):
    """See `documented`. Made when /docs is first shown: the schemas of all routes would take a tenth of a start."""

    def __init__(self, model: type[BaseModel], examples: Mapping[str, object], binary: Mapping[str, str]) -> None:
        self._model = model
        self._examples = examples
        self._binary = binary

    @cached_property
    def _content(self) -> dict[str, Any]:
        schema = self._model.model_json_schema()
        definitions = schema.pop("$defs", {})
        json_body = {
            "schema": _inlined(schema, definitions),
            "examples": {summary: {"summary": summary, "value": value} for summary, value in self._examples.items()},
        }
        bytes_of = {"type": "string", "format": "binary"}
        others = {media: {"schema": {**bytes_of, "description": text}} for media, text in self._binary.items()}
        return {"requestBody": {"required": True, "content": {JSON: json_body, **others}}}

    def __getitem__(self, name: str) -> Any:
        return self._content[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """`schema` with its `$ref`s replaced by their definitions: in an OpenAPI document they would not resolve."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
        del schema["$ref"]
    return {name: _inlined(part, definitions) for name, part in schema.items()}
