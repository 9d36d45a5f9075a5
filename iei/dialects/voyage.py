"""Voyage's multimodal embeddings.

Wire format: docs/api/voyage.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.fields import ListOf, OrNull
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.partial import OnErrorField, errors_of, on_error
from iei.dialects.parts import Parts, input_of_parts
from iei.dialects.plain_errors import BadDetail, DetailSentence, as_detail
from iei.dialects.prompts import prompts_for
from iei.dialects.registry import Dialect
from iei.dialects.vectors import Encoding, encoded
from iei.dialects.wire import json_list, json_response, model_of, one_kind_of_fault, parsed, result_headers
from iei.errors import InvalidInput, ModelNotFound
from iei.models.spec import Modality, ModelSpec
from iei.requests import Embeddings, OnError, Options
from iei.service import EmbeddingService
from iei.settings import DialectSettings
from iei.vectors import quantized

OutputDtype = Literal["float", "int8", "uint8", "binary", "ubinary"]


class Document(BaseModel):
    """A text or an image as a list of parts, of which one is not blank."""

    content: Parts


class MultimodalRequest(BaseModel):
    """The body of a request to `/v1/multimodalembeddings`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    inputs: ListOf[Document]
    """What to embed: one vector each."""
    model: str | None = None
    """One of the names that /v1/models lists. Default: the first."""
    input_type: str | None = None
    """`query` or `document`: a model with a prompt for it gets that prompt before each text."""
    truncation: Annotated[bool, OrNull] = True
    """Truncate texts that are too long instead of rejecting them."""
    output_dtype: Annotated[OutputDtype, OrNull] = "float"
    """Data type of the vectors. `binary` and `ubinary` have a bit for each value, eight to a number."""
    output_dimension: int | None = Field(None, ge=1)
    """Truncate each vector to this many leading values, before it is normalised."""
    encoding_format: Annotated[Encoding, OrNull] = "float"
    """Format of the vectors: lists of numbers (the default), or base64 of the little-endian numbers."""
    on_error: OnErrorField = None
    """What a bad input costs: `fail`, the whole request (the default); `null`, its own vector only."""


class Vector(BaseModel):
    """One input's vector."""

    object: Literal["embedding"]
    embedding: list[float] | str | None
    index: int


class Usage(BaseModel):
    """What was embedded."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    text_tokens: int
    image_pixels: int
    video_pixels: int
    """Always 0: videos are not offered."""
    total_tokens: int
    """Tokens of the texts and patches of the images."""


class MultimodalResponse(BaseModel):
    """The body of a response."""

    object: Literal["list"]
    data: list[Vector]
    model: str
    usage: Usage
    errors: list[BadDetail] | None = None
    """Inputs without a vector, where the request has `on_error: null`."""


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's route. It has no settings."""
    routes = APIRouter(responses=errors_as(DetailSentence))

    @routes.post(
        "/v1/multimodalembeddings",
        summary="Embed images and texts as Voyage does",
        openapi_extra=documented(MultimodalRequest, _examples(service.default)),
        response_model=MultimodalResponse,
    )
    async def multimodal_embeddings(request: Request) -> Response:
        """One vector of length 1 for each input, which is a text or an image."""
        with one_kind_of_fault():
            body = await parsed(request, MultimodalRequest)
            wanted = on_error(request, body.on_error)
            embeddings = await _embedded(service, model_of(request, body.model), body, wanted)
        vectors = await json_list(_vectors(body, embeddings))
        content = {
            "object": "list",
            "data": orjson.Fragment(vectors),
            "model": embeddings.spec.name,
            "usage": _usage(embeddings),
            **errors_of(embeddings.errors.items(), as_detail),
        }
        return json_response(orjson.dumps(content), headers=result_headers(embeddings))

    return Dialect("Voyage", as_detail, routes, about="Multimodal embeddings as Voyage's API.")


async def _embedded(
    service: EmbeddingService, model: str | None, body: MultimodalRequest, on_error: OnError
) -> Embeddings:
    inputs = [input_of_parts(item.content) for item in body.inputs]
    options = Options(
        model=model,
        normalize=True,
        dimensions=body.output_dimension,
        truncate=body.truncation,
        prompt_hints=prompts_for(body.input_type),
        on_error=on_error,
    )
    try:
        return await service.embed(inputs, options)
    except ModelNotFound as error:  # of Voyage's statuses, 400 is the one that its client tells users about
        raise InvalidInput(error.message, error.field) from None


def _vectors(body: MultimodalRequest, embeddings: Embeddings) -> Iterator[dict[str, Any]]:
    for index, item in enumerate(embeddings.items):
        vector = item and encoded(quantized(item.vector, body.output_dtype), body.encoding_format)
        yield {"object": "embedding", "embedding": vector, "index": index}


def _usage(embeddings: Embeddings) -> dict[str, int]:
    pictures = [item.picture for item in embeddings.done if item.picture]
    return {
        "text_tokens": sum(item.tokens for item in embeddings.done if not item.picture),
        "image_pixels": sum(picture.width * picture.height for picture in pictures),
        "video_pixels": 0,
        "total_tokens": sum(item.tokens for item in embeddings.done),
    }


def _examples(spec: ModelSpec) -> dict[str, object]:
    inputs = [{"content": [_PARTS[modality]]} for modality in spec.modalities]
    return {
        " and ".join(f"{modality}s" for modality in spec.modalities): {"model": spec.name, "inputs": inputs},
        "smaller vectors": {
            "model": spec.name,
            "inputs": inputs[:1],
            "output_dtype": "int8",
            "output_dimension": 8,
            "encoding_format": "base64",
        },
    }


_PARTS: Mapping[Modality, dict[str, Any]] = {
    "image": {"type": "image_base64", "image_base64": SAMPLES["image"][0]},
    "text": {"type": "text", "text": SAMPLES["text"][0]},
}
"""A part of a content, of each modality."""
