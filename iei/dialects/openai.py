"""OpenAI's embeddings API for texts and images, with the image objects that Imbeddings accepts on the same route.

Wire format: docs/api/openai.md.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.fields import AnyCase, ListOf
from iei.dialects.items import TextOptions, input_of
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.registry import Dialect
from iei.dialects.vectors import Encoding, encoded
from iei.dialects.wire import json_list, json_response, model_of, one_kind_of_fault, parsed, result_headers
from iei.errors import IEIError, InvalidField, ModelNotFound, Overloaded, Unauthorized
from iei.models.spec import Modality, ModelSpec
from iei.requests import Embeddings, ImageInput, Options
from iei.service import EmbeddingService
from iei.settings import DialectSettings

TokenId = Annotated[int, Field(strict=True, ge=0, lt=2**31)]


class ImageItem(BaseModel):
    """An image object as in Imbeddings' API. Exactly one of its two fields is set; both accept the same forms."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: Literal["image"] = "image"
    image_base64: str | None = None
    """Base64, a data URI or a URL."""
    image_url: str | None = None
    """A URL, a data URI or base64."""

    @model_validator(mode="after")
    def _has_one_source(self) -> ImageItem:
        if (self.image_base64 is None) == (self.image_url is None):
            raise ValueError("must have exactly one of image_base64 and image_url")
        return self

    @property
    def source(self) -> str:
        """The value of the field that is set."""
        return self.image_base64 or self.image_url or ""


_TAGS: dict[type, str] = {str: "<text>", list: "<tokens>", dict: "<image>"}

Item = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[ListOf[TokenId], Tag("<tokens>")] | Annotated[ImageItem, Tag("<image>")],
    Discriminator(
        lambda item: _TAGS.get(type(item)),
        custom_error_type="item",
        custom_error_message="must be a string, a list of token ids, or an object with an image",
    ),
]


def _as_list(value: object) -> object:
    """Wraps a single text, list of token ids or image object in a list."""
    if not isinstance(value, str | list | dict):
        raise ValueError("must be a text, the token ids of a text, an object with an image, or a list of these")
    alone = not isinstance(value, list) or (value and isinstance(value[0], int))
    return [value] if alone else value


class EmbeddingsRequest(TextOptions):
    """The body of a request to `/v1/embeddings`."""

    input: Annotated[
        ListOf[Item],
        BeforeValidator(_as_list, json_schema_input_type=str | list[TokenId] | ImageItem | list[Item]),
    ]
    """A text, the token ids of a text, or an image; or a list of these."""
    model: str | None = None
    """One of the names that /v1/models lists. Default: the first."""
    encoding_format: Encoding | None = None
    """Format of the vectors: numbers (the default), or base64 of little-endian float32."""
    dimensions: int | None = Field(None, ge=1)
    """Truncate each vector to this many leading values, before it is normalised."""
    modality: Annotated[Modality, AnyCase] | None = None
    """How a model for both reads strings. Default: data URIs of images are images, other strings are texts."""


Written = list[float] | str
"""A vector in the format that `encoding_format` names."""


class Vector(BaseModel):
    """One input's vector."""

    object: Literal["embedding"]
    index: int
    embedding: Written


class NamedVectors(BaseModel):
    """The vectors of an image object: its class token, and the mean of its patch tokens."""

    object: Literal["embedding"]
    index: int
    embeddings: dict[Literal["cls", "mean"], Written]


class Tokens(BaseModel):
    """Usage of a request, as in OpenAI's API."""

    prompt_tokens: int
    total_tokens: int


class Images(BaseModel):
    """Usage of a request, as in Imbeddings' API."""

    input_images: int
    embedding_dim: int


class EmbeddingsResponse(BaseModel):
    """The body of a response."""

    object: Literal["list"]
    data: list[Vector] | list[NamedVectors]
    model: str
    usage: Tokens | Images


class ErrorFields(BaseModel):
    """An error, as in OpenAI's API."""

    message: str
    type: str
    param: str | None
    code: str | None


class EmbeddingsError(BaseModel):
    """The body of an error."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    error: ErrorFields
    detail: str
    """The message again, for clients of Imbeddings."""


def error_body(error: IEIError) -> bytes:
    """The JSON body of an error response."""
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    fields = {"message": error.message, "type": _type_of(error.status), "param": error.field, "code": code}
    return orjson.dumps({"error": fields, "detail": error.message})


_CODES: dict[type[IEIError], str] = {
    ModelNotFound: "model_not_found",
    Overloaded: "rate_limit_exceeded",
    Unauthorized: "invalid_api_key",
}


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes. It has no settings."""
    routes = APIRouter(tags=["OpenAI"], prefix="/v1", responses=errors_as(EmbeddingsError))
    created = int(time.time())

    @routes.post(
        "/embeddings",
        openapi_extra=documented(EmbeddingsRequest, _examples(service.default)),
        response_model=EmbeddingsResponse,
    )
    async def embeddings(request: Request) -> Response:
        """One vector of length 1 for each input; two, `cls` and `mean`, for each image given as an object."""
        with one_kind_of_fault():
            body = await parsed(request, EmbeddingsRequest)
            objects = [isinstance(item, ImageItem) for item in body.input]
            if not any(objects):
                return await _one_vector(service, model_of(request, body.model), body)
            if not all(objects):
                raise InvalidField("input: images given as objects can't be mixed with strings and token ids", "input")
        return await _named_vectors(service, model_of(request, body.model), body)

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        """The models that are served. The first is the default of the routes that name no model."""
        return {"object": "list", "data": [_model(name) for name in service.model_names]}

    @routes.get("/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        return _model(service.resolve(model))

    def _model(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": created, "owned_by": "iei"}

    return Dialect("OpenAI", error_body, routes, prefix="/v1/")


async def _one_vector(service: EmbeddingService, model: str | None, body: EmbeddingsRequest) -> Response:
    """A response in OpenAI's format."""
    inputs = [input_of(item, body.modality) for item in body.input if not isinstance(item, ImageItem)]
    options = body.options(model=model, normalize=True, dimensions=body.dimensions)
    embeddings = await service.embed(inputs, options, field="input")
    tokens = sum(item.tokens for item in embeddings.items)
    return await _response(
        embeddings,
        [{"embedding": encoded(item.vector, body.encoding_format or "float")} for item in embeddings.items],
        {"prompt_tokens": tokens, "total_tokens": tokens},
    )


async def _named_vectors(service: EmbeddingService, model: str | None, body: EmbeddingsRequest) -> Response:
    """A response in Imbeddings' format."""
    inputs = [ImageInput(item.source) for item in body.input if isinstance(item, ImageItem)]
    options = Options(model=model, outputs=tuple(_IMBEDDINGS.values()), normalize=True, dimensions=body.dimensions)
    embeddings = await service.embed(inputs, options, field="input")
    encoding = body.encoding_format or "float"
    return await _response(
        embeddings,
        [
            {"embeddings": {name: encoded(item.outputs[output], encoding) for name, output in _IMBEDDINGS.items()}}
            for item in embeddings.items
        ],
        {"input_images": len(embeddings.items), "embedding_dim": embeddings.items[0].outputs["cls"].size},
    )


_IMBEDDINGS = {"cls": "cls", "mean": "patch_mean"}
"""Imbeddings' name of a vector → IEI's. By Imbeddings' README, `mean` is the mean of the patch tokens only."""


async def _response(embeddings: Embeddings, data: list[dict[str, Any]], usage: dict[str, int]) -> Response:
    items = [{"object": "embedding", "index": index, **vectors} for index, vectors in enumerate(data)]
    content = orjson.dumps(
        {
            "object": "list",
            "data": orjson.Fragment(await json_list(items)),
            "model": embeddings.spec.name,
            "usage": usage,
        }
    )
    return json_response(content, headers=result_headers(embeddings))


def _examples(spec: ModelSpec) -> dict[str, object]:
    model = {"model": spec.name}
    examples: dict[str, object] = {
        f"{modality}s, as in OpenAI's API": {**model, "input": SAMPLES[modality]} for modality in spec.modalities
    }
    examples["vectors as base64, as OpenAI's client requests them"] = {
        **model,
        "input": SAMPLES[spec.modalities[0]][0],
        "encoding_format": "base64",
        "dimensions": 8,
    }
    if spec.image and spec.image.outputs.keys() >= set(_IMBEDDINGS.values()):
        image = {"type": "image", "image_base64": SAMPLES["image"][0]}
        examples["images, as in Imbeddings"] = {**model, "input": [image]}
    return examples
