"""Cohere's embed API, versions 1 and 2.

Wire format: docs/api/cohere.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.fields import AnyCase, ListOf, OrNull, Strings, one_or_more
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.partial import OnErrorField, errors_of, on_error
from iei.dialects.parts import Parts, input_of_parts
from iei.dialects.prompts import prompts_for
from iei.dialects.registry import Dialect
from iei.dialects.vectors import Encoding, encoded
from iei.dialects.wire import json_list, json_response, model_of, one_kind_of_fault, parsed, result_headers
from iei.errors import IEIError, InvalidField
from iei.models.spec import Modality, ModelSpec
from iei.requests import Embedding, Embeddings, ImageInput, Input, OnError, Options, TextInput
from iei.service import EmbeddingService
from iei.settings import DialectSettings
from iei.vectors import Quantized, VectorDtype, quantized

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]

_FORMS: Mapping[EmbeddingType, tuple[VectorDtype, Encoding]] = {
    "float": ("float", "float"),
    "int8": ("int8", "float"),
    "uint8": ("uint8", "float"),
    "binary": ("binary", "float"),
    "ubinary": ("ubinary", "float"),
    "base64": ("float", "base64"),
}
"""Type of an embedding → data type of its numbers, and how they are written."""

Truncate = Literal["none", "start", "end", "left", "right"]

_TRUNCATION: Mapping[Truncate, tuple[bool, Literal["left", "right"]]] = {
    "none": (False, "right"),
    "start": (True, "left"),
    "end": (True, "right"),
    "left": (True, "left"),
    "right": (True, "right"),
}
"""Value of `truncate` → whether texts that are too long are truncated, and where. The last two are only Weaviate's."""


class EmbedRequest(BaseModel):
    """The body of a request to `/v1/embed`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str | None = None
    """One of the names that /v1/models lists. Default: the first."""
    texts: Strings | None = None
    """The texts to embed; or else `images`."""
    images: Strings | None = None
    """The images to embed, each a data URI, base64 or a URL."""
    input_type: str | None = None
    """What texts are for, such as `search_query`: a model with a prompt for it gets that prompt before each text."""
    embedding_types: Annotated[
        ListOf[EmbeddingType],
        BeforeValidator(one_or_more, json_schema_input_type=EmbeddingType | list[EmbeddingType]),
        OrNull,
    ] = []
    """The forms in which each vector is returned."""
    truncate: Annotated[Truncate, AnyCase, OrNull] = "end"
    """The end at which texts that are too long are truncated: `START` or `END`; or `NONE`, to reject them."""
    on_error: OnErrorField = None
    """What a bad input costs: `fail`, the whole request (the default); `null`, its own vector only."""

    def sources(self) -> dict[str, list[Input]]:
        """The inputs that each field holds."""
        return {
            "texts": [TextInput(text) for text in self.texts or ()],
            "images": [ImageInput(image) for image in self.images or ()],
        }

    def options(self, model: str | None, on_error: OnError) -> Options:
        """What the request says about its inputs."""
        truncate, direction = _TRUNCATION[self.truncate]
        return Options(
            model=model,
            normalize=True,
            truncate=truncate,
            truncation_direction=direction,
            prompt_hints=prompts_for(self.input_type),
            on_error=on_error,
        )


R = TypeVar("R", bound=EmbedRequest)


class MixedInput(BaseModel):
    """A text or an image as a list of parts, of which one is not blank."""

    content: Parts


class EmbedRequestV2(EmbedRequest):
    """The body of a request to `/v2/embed`."""

    inputs: ListOf[MixedInput] | None = None
    """Texts and images to embed, in any order; instead of `texts` and `images`."""
    output_dimension: int | None = Field(None, ge=1)
    """Truncate each vector to this many leading values, before it is normalised."""

    def sources(self) -> dict[str, list[Input]]:
        """The inputs that each field holds."""
        return {**super().sources(), "inputs": [input_of_parts(item.content) for item in self.inputs or ()]}

    def options(self, model: str | None, on_error: OnError) -> Options:
        """What the request says about its inputs."""
        return replace(super().options(model, on_error), dimensions=self.output_dimension)


class Picture(BaseModel):
    """Size of an image that was embedded, in pixels."""

    width: int
    height: int


class Version(BaseModel):
    """The version of the API that answered."""

    version: Literal["1", "2"]


class Usage(BaseModel):
    """Tokens of the texts, and number of the images; each only where there are some."""

    input_tokens: int | None = None
    images: int | None = None


class Meta(BaseModel):
    """About the response."""

    api_version: Version
    billed_units: Usage


class EmbedError(BaseModel):
    """The body of an error."""

    id: str
    message: str


class BadInput(EmbedError):
    """What is wrong with an input that has no vector."""

    index: int


class Answer(BaseModel):
    """What both forms of responses have."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    texts: list[str]
    images: list[Picture | None] | None = None
    meta: Meta
    errors: list[BadInput] | None = None
    """Inputs without a vector, where the request has `on_error: null`."""


class EmbedByTypeResponse(Answer):
    """The response of version 2, and of version 1 to requests with `embedding_types`."""

    response_type: Literal["embeddings_by_type"]
    embeddings: dict[EmbeddingType, list[list[float] | None] | list[str | None]]


class EmbedFloatsResponse(Answer):
    """The response of version 1 to requests without `embedding_types`."""

    response_type: Literal["embeddings_floats"]
    embeddings: list[list[float] | None]


def error_body(error: IEIError) -> bytes:
    """The JSON body of an error response."""
    return orjson.dumps({"id": _new_id(), "message": error.message})


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes. It has no settings."""
    routes = APIRouter(responses=errors_as(EmbedError))

    @routes.post(
        "/v2/embed",
        summary="Embed texts and images as Cohere does (API version 2)",
        openapi_extra=documented(EmbedRequestV2, _examples(service.default, mixed=True)),
        response_model=EmbedByTypeResponse,
    )
    async def embed_v2(request: Request) -> Response:
        """Vectors of length 1 of texts, images or both, in each of the forms that are asked for."""
        body, inputs, embeddings = await _embedded(service, request, EmbedRequestV2)
        vectors = await _by_type(embeddings, body.embedding_types or ["float"])
        return _response(inputs, embeddings, vectors, "2")

    @routes.post(
        "/v1/embed",
        summary="Embed texts or images as Cohere does (API version 1)",
        openapi_extra=documented(EmbedRequest, _examples(service.default, mixed=False)),
        response_model=EmbedFloatsResponse | EmbedByTypeResponse,
    )
    async def embed_v1(request: Request) -> Response:
        """Vectors of length 1 of texts or images: a list, or in each of the forms in `embedding_types`."""
        body, inputs, embeddings = await _embedded(service, request, EmbedRequest)
        if body.embedding_types:
            vectors = await _by_type(embeddings, body.embedding_types)
        else:
            vectors = await _floats(embeddings)
        return _response(inputs, embeddings, vectors, "1")

    return Dialect(
        "Cohere", error_body, routes, about="Embeddings as Cohere's API: texts, images and all types of embeddings."
    )


async def _embedded(service: EmbeddingService, request: Request, form: type[R]) -> tuple[R, list[Input], Embeddings]:
    """The request, its inputs and what they became. All that is wrong with it is an error 400."""
    with one_kind_of_fault():
        body = await parsed(request, form)
        field, inputs = _one_source(body)
        options = body.options(model_of(request, body.model), on_error(request, body.on_error))
        embeddings = await service.embed(inputs, options, field=field)
        return body, inputs, embeddings


def _one_source(body: EmbedRequest) -> tuple[str, list[Input]]:
    """The name of the only field with inputs, and these."""
    sources = body.sources()
    given = [(field, inputs) for field, inputs in sources.items() if inputs]
    if len(given) != 1:
        found = " and ".join(field for field, _ in given) or "none"
        raise InvalidField(f"exactly one of {', '.join(sources)} must have inputs, but these have: {found}")
    return given[0]


async def _floats(embeddings: Embeddings) -> dict[str, Any]:
    vectors = await json_list(embeddings.vectors)
    return {"response_type": "embeddings_floats", "embeddings": orjson.Fragment(vectors)}


async def _by_type(embeddings: Embeddings, types: Sequence[EmbeddingType]) -> dict[str, Any]:
    written = {name: orjson.Fragment(await json_list(_written(embeddings.items, name))) for name in types}
    return {"response_type": "embeddings_by_type", "embeddings": written}


def _written(items: Iterable[Embedding | None], name: EmbeddingType) -> Iterator[Quantized | str | None]:
    """The vectors in one form, each made when it is needed: together they would hold the event loop for long."""
    dtype, encoding = _FORMS[name]
    return (item and encoded(quantized(item.vector, dtype), encoding) for item in items)


def _response(
    inputs: Sequence[Input], embeddings: Embeddings, vectors: Mapping[str, Any], version: Literal["1", "2"]
) -> Response:
    texts = [item.source for item in inputs if isinstance(item, TextInput)]
    pictures = [
        done and done.picture and done.picture._asdict()
        for item, done in zip(inputs, embeddings.items, strict=True)
        if isinstance(item, ImageInput)
    ]
    tokens = sum(item.tokens for item in embeddings.done if not item.picture)
    images = sum(item.picture is not None for item in embeddings.done)
    content = {
        "id": _new_id(),
        **vectors,
        "texts": texts,
        **({"images": pictures} if pictures else {}),
        "meta": {
            "api_version": {"version": version},
            "billed_units": {
                **({"input_tokens": tokens} if texts else {}),
                **({"images": images} if pictures else {}),
            },
        },
        **errors_of(embeddings.errors.items(), error_body),
    }
    return json_response(orjson.dumps(content), headers=result_headers(embeddings))


def _new_id() -> str:
    return str(uuid.uuid4())


def _examples(spec: ModelSpec, *, mixed: bool) -> dict[str, object]:
    model = {"model": spec.name}
    examples: dict[str, object] = {
        f"{modality}s": {**model, f"{modality}s": SAMPLES[modality], "input_type": _INPUT_TYPES[modality]}
        for modality in spec.modalities
    }
    first = spec.modalities[0]
    examples["smaller forms of the vectors"] = {
        **model,
        f"{first}s": SAMPLES[first][:1],
        "input_type": _INPUT_TYPES[first],
        "embedding_types": ["int8", "ubinary", "base64"],
    }
    if mixed:
        examples["contents in parts"] = {
            **model,
            "inputs": [{"content": [_PARTS[modality]]} for modality in spec.modalities],
            "input_type": _INPUT_TYPES[first],
            "embedding_types": ["float"],
        }
    return examples


_INPUT_TYPES: Mapping[Modality, str] = {"image": "image", "text": "search_document"}

_PARTS: Mapping[Modality, dict[str, Any]] = {
    "image": {"type": "image_url", "image_url": {"url": SAMPLES["image"][0]}},
    "text": {"type": "text", "text": SAMPLES["text"][0]},
}
"""A part of a content, of each modality."""
