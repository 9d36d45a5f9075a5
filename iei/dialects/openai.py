"""OpenAI's embeddings, of texts and of pictures, and those that Imbeddings gives of pictures in the same place.

Wire format: docs/api/openai.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import orjson
import pybase64
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.fields import AnyCase, ListOf
from iei.dialects.items import TextOptions, input_of
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.wire import json_list, json_response, one_kind_of_fault, parsed, timing_headers
from iei.errors import IEIError, InvalidField, ModelNotFound, Overloaded
from iei.models.spec import Modality, ModelSpec
from iei.service import Embedder, Embeddings, ImageInput, Options, Vectors

Encoding = Literal["float", "base64"]
TokenId = Annotated[int, Field(strict=True, ge=0, lt=2**31)]


class ImageItem(BaseModel):
    """A picture as Imbeddings takes it: in one of the two fields, either of which may hold any form of it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: Literal["image"] = "image"
    image_base64: str | None = None
    """Base64, a data URI or a URL."""
    image_url: str | None = None
    """A URL, a data URI or base64."""

    @model_validator(mode="after")
    def _has_one_source(self) -> ImageItem:
        if (self.image_base64 is None) == (self.image_url is None):
            raise ValueError("give one of image_base64 and image_url, and only one")
        return self

    @property
    def source(self) -> str:
        return self.image_base64 or self.image_url or ""


_TAGS: dict[type, str] = {str: "<text>", list: "<tokens>", dict: "<image>"}

Item = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[ListOf[TokenId], Tag("<tokens>")] | Annotated[ImageItem, Tag("<image>")],
    Discriminator(
        lambda item: _TAGS.get(type(item)),
        custom_error_type="item",
        custom_error_message="an item is a string, a list of token ids, or an object with an image",
    ),
]


def _as_list(value: object) -> object:
    """A text, the token ids of a text or an image alone is a list of one."""
    if not isinstance(value, str | list | dict):
        raise ValueError("a text is wanted, the ids of its tokens, an object with an image, or a list of these")
    alone = not isinstance(value, list) or (value and isinstance(value[0], int))
    return [value] if alone else value


class EmbeddingsRequest(TextOptions):
    input: Annotated[
        ListOf[Item],
        BeforeValidator(_as_list, json_schema_input_type=str | list[TokenId] | ImageItem | list[Item]),
    ]
    """Texts, token ids of texts, or images: one, or a list."""
    model: str
    """One of the names at /v1/models."""
    encoding_format: Encoding | None = None
    """How vectors are written: numbers (the default), or base64 of little-endian float32."""
    dimensions: int | None = Field(None, ge=1)
    """Keep this many leading values of each vector, before it is normalised."""
    modality: Annotated[Modality, AnyCase] | None = None
    """What the strings are, for a model that takes both. Default: data URIs of images are images, the rest is text."""


Written = list[float] | str
"""A vector, as `encoding_format` says."""


class Vector(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: Written


class NamedVectors(BaseModel):
    """Of an image given as an object: its class token, and the mean of its patches."""

    object: Literal["embedding"]
    index: int
    embeddings: dict[Literal["cls", "mean"], Written]


class Tokens(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Images(BaseModel):
    input_images: int
    embedding_dim: int


class EmbeddingsResponse(BaseModel):
    object: Literal["list"]
    data: list[Vector] | list[NamedVectors]
    model: str
    usage: Tokens | Images


class ErrorFields(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class EmbeddingsError(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    error: ErrorFields
    detail: str
    """The message once more, for clients of Imbeddings."""


def error_body(error: IEIError) -> bytes:
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    fields = {"message": error.message, "type": _type_of(error.status), "param": error.field, "code": code}
    return orjson.dumps({"error": fields, "detail": error.message})


_CODES: dict[type[IEIError], str] = {ModelNotFound: "model_not_found", Overloaded: "rate_limit_exceeded"}


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def router(embedder: Embedder) -> APIRouter:
    routes = APIRouter(tags=["OpenAI"], prefix="/v1", responses=errors_as(EmbeddingsError))
    created = int(time.time())

    @routes.post(
        "/embeddings",
        openapi_extra=documented(EmbeddingsRequest, _examples(embedder.engine.default)),
        response_model=EmbeddingsResponse,
    )
    async def embeddings(request: Request) -> Response:
        """One vector per input, of length 1; of images given as objects, two: `cls` and `mean`."""
        with one_kind_of_fault():
            body = await parsed(request, EmbeddingsRequest)
            objects = [isinstance(item, ImageItem) for item in body.input]
            if not any(objects):
                return await _one_vector(embedder, body)
            if not all(objects):
                raise InvalidField("input: images given as objects can't be mixed with strings and token ids", "input")
        return await _named_vectors(embedder, body)

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        """The models that are served. Requests to other routes get the first."""
        return {"object": "list", "data": [_model(name) for name in embedder.catalog.names]}

    @routes.get("/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        return _model(embedder.catalog.resolve(model))

    def _model(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": created, "owned_by": "iei"}

    return routes


async def _one_vector(embedder: Embedder, body: EmbeddingsRequest) -> Response:
    """OpenAI's response."""
    spec = await embedder.describe(body.model)
    inputs = [input_of(item, spec, body.modality) for item in body.input if not isinstance(item, ImageItem)]
    options = body.options(model=body.model, normalize=True, dimensions=body.dimensions)
    embeddings = await embedder.embed(inputs, options, field="input")
    written = _WRITTEN[body.encoding_format or "float"]
    tokens = sum(item.tokens for item in embeddings.items)
    return await _response(
        embeddings,
        [{"embedding": written(item.vector)} for item in embeddings.items],
        {"prompt_tokens": tokens, "total_tokens": tokens},
    )


async def _named_vectors(embedder: Embedder, body: EmbeddingsRequest) -> Response:
    """Imbeddings' response."""
    inputs = [ImageInput(item.source) for item in body.input if isinstance(item, ImageItem)]
    options = Options(model=body.model, outputs=tuple(_IMBEDDINGS.values()), normalize=True, dimensions=body.dimensions)
    embeddings = await embedder.embed(inputs, options, field="input")
    written = _WRITTEN[body.encoding_format or "float"]
    return await _response(
        embeddings,
        [
            {"embeddings": {name: written(item.outputs[output]) for name, output in _IMBEDDINGS.items()}}
            for item in embeddings.items
        ],
        {"input_images": len(embeddings.items), "embedding_dim": embeddings.items[0].outputs["cls"].size},
    )


_IMBEDDINGS = {"cls": "cls", "mean": "patch_mean"}
"""What Imbeddings calls a vector → what it is. Its README promises a mean over patches alone."""


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
    return json_response(content, headers=timing_headers(embeddings))


def _base64(vector: Vectors) -> str:
    return pybase64.b64encode_as_string(vector.astype("<f4", copy=False).tobytes())


_WRITTEN: dict[Encoding, Callable[[Vectors], str | Vectors]] = {"float": np.asarray, "base64": _base64}


def _examples(spec: ModelSpec) -> dict[str, object]:
    model = {"model": spec.name}
    examples: dict[str, object] = {
        f"{modality}s, as in OpenAI's API": {**model, "input": SAMPLES[modality]} for modality in spec.modalities
    }
    examples["vectors as base64, as OpenAI's client asks for them"] = {
        **model,
        "input": SAMPLES[spec.modalities[0]][0],
        "encoding_format": "base64",
        "dimensions": 8,
    }
    if spec.image and spec.image.outputs.keys() >= set(_IMBEDDINGS.values()):
        image = {"type": "image", "image_base64": SAMPLES["image"][0]}
        examples["images, as in Imbeddings"] = {**model, "input": [image]}
    return examples
