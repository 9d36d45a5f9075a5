"""The routes of the inference containers of Weaviate's modules: `/vectors`, `/vectorize`, `/meta`, `/.well-known/…`.

The modules are img2vec-neural, multi2vec-clip, multi2vec-bind and text2vec-transformers. Wire format:
docs/api/weaviate.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from iei import __version__
from iei.dialects.fields import ListOf, OrNull
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.partial import ONE_INPUT, OnErrorField, check_whole, errors_of, on_error
from iei.dialects.plain_errors import BadSentence, ErrorSentence, as_error
from iei.dialects.prompts import prompts_for
from iei.dialects.registry import Dialect
from iei.dialects.wire import json_list, json_response, model_of, parsed, result_headers
from iei.errors import EmptyInput, InvalidField, Unhealthy
from iei.models.catalog import served_name
from iei.models.spec import ModelSpec, Pooling
from iei.requests import ImageInput, Input, Options, TextInput
from iei.service import EmbeddingService
from iei.settings import DialectSettings

_POOLINGS: Mapping[str | None, Pooling] = {"cls": "cls"}
"""Pooling strategy → IEI's, where it is not the model's own.

Weaviate sends `masked_mean` if a collection says nothing, so it can't mean that a model with another pooling is to be
pooled differently. The containers ignore it for such models, too.
"""


class VectorsConfig(BaseModel):
    """What a collection's settings say about a text."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    pooling_strategy: Literal["masked_mean", "cls"] | None = None
    """`cls`: the class token. `masked_mean`, the default: the pooling of the model."""
    task_type: Literal["query", "passage"] | None = None
    """Which of the model's prompts is prepended to the text, if it has one of the kind."""
    dimensions: int | None = Field(default=None, ge=1)
    """Truncate the vector to this many leading values, before it is normalised."""


class VectorsRequest(BaseModel):
    """The body of a request to `/vectors`, for one image or one text."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str = ""
    """Of an image: returned as it is."""
    image: str | None = None
    """An image as base64, a data URI or a URL."""
    text: str | None = None
    """A text. It is truncated to the model's limit."""
    config: Annotated[VectorsConfig, OrNull] = VectorsConfig()
    """Ignored for images."""

    @model_validator(mode="after")
    def _has_one_input(self) -> VectorsRequest:
        if (self.image is None) == (self.text is None):
            raise ValueError("must have exactly one of image and text")
        return self


class ImageVector(BaseModel):
    """The vector of an image."""

    id: str
    vector: list[float]
    dim: int


class TextVector(BaseModel):
    """The vector of a text."""

    text: str
    vector: list[float]
    dim: int


Inputs = Annotated[ListOf[str], OrNull]


class VectorizeRequest(BaseModel):
    """The body of a request to `/vectorize`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    texts: Inputs = []
    """Texts. They are truncated to the model's limit."""
    images: Inputs = []
    """Images as base64, data URIs or URLs."""
    audio: Inputs = []
    """Not offered, like the fields below: must be empty."""
    video: Inputs = []
    imu: Inputs = []
    thermal: Inputs = []
    depth: Inputs = []
    on_error: OnErrorField = None
    """What a bad input costs: `fail`, the whole request (the default); `null`, its own vector only."""


_NOT_OFFERED = ("audio", "video", "imu", "thermal", "depth")


class VectorizeResponse(BaseModel):
    """The vectors of texts and images."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    textVectors: list[list[float] | None]
    imageVectors: list[list[float] | None]
    errors: list[BadSentence] | None = None
    """Inputs without a vector, where the request has `on_error: null`; images count on from the texts."""


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes. It has no settings."""
    routes = APIRouter(responses=errors_as(ErrorSentence))
    default = service.default

    async def embedded(echo: dict[str, Any], item: Input, name: str, options: Options) -> Response:
        embeddings = await service.embed([item], options, names=[name])
        vector = embeddings.done[0].vector
        content = {**echo, "vector": vector, "dim": vector.size}
        return json_response(
            orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), headers=result_headers(embeddings)
        )

    @routes.post("/vectors/", include_in_schema=False)
    @routes.post(
        "/vectors",
        summary="Embed one text or image as Weaviate's transformers module does",
        openapi_extra=documented(VectorsRequest, _vectors_examples(default)),
        response_model=ImageVector | TextVector,
    )
    async def vectors(request: Request) -> Response:
        """One vector of length 1, of an image (img2vec-neural) or of a text (text2vec-transformers)."""
        check_whole(request, ONE_INPUT)
        body = await parsed(request, VectorsRequest)
        options = Options(model=model_of(request), normalize=True)
        if body.image is not None:
            return await embedded({"id": body.id}, ImageInput(body.image), "image", options)
        options = replace(
            options,
            outputs=(_POOLINGS.get(body.config.pooling_strategy, "default"),),
            dimensions=body.config.dimensions,
            truncate=True,
            prompt_hints=prompts_for(body.config.task_type),
        )
        return await embedded({"text": body.text}, _text(body.text or ""), "text", options)

    @routes.post(
        "/vectorize",
        summary="Embed texts and images as Weaviate's multi2vec modules do",
        openapi_extra=documented(VectorizeRequest, _vectorize_examples(default)),
        response_model=VectorizeResponse,
    )
    async def vectorize(request: Request) -> Response:
        """One vector of length 1 for each text and each image (multi2vec-clip, multi2vec-bind)."""
        body = await parsed(request, VectorizeRequest)
        for field in _NOT_OFFERED:
            if getattr(body, field):
                raise InvalidField(f"{field}: not offered: only texts and images are", field)
        if not (body.texts or body.images):
            raise EmptyInput("texts and images are empty: send at least one")
        inputs: list[Input] = [*map(_text, body.texts), *map(ImageInput, body.images)]
        names = [f"texts[{index}]" for index in range(len(body.texts))]
        names += [f"images[{index}]" for index in range(len(body.images))]
        wanted = on_error(request, body.on_error)
        options = Options(model=model_of(request), normalize=True, truncate=True, on_error=wanted)
        embeddings = await service.embed(inputs, options, field="texts and images", names=names)
        found = embeddings.vectors
        content = {
            "textVectors": orjson.Fragment(await json_list(found[: len(body.texts)])),
            "imageVectors": orjson.Fragment(await json_list(found[len(body.texts) :])),
            **errors_of(embeddings.errors.items(), as_error),
        }
        return json_response(orjson.dumps(content), headers=result_headers(embeddings))

    return Dialect(
        "Weaviate",
        as_error,
        routes,
        _health_routes(service),
        about="What Weaviate's modules call: img2vec-neural, multi2vec-clip, multi2vec-bind, text2vec-transformers.",
    )


def _health_routes(service: EmbeddingService) -> APIRouter:
    """What Weaviate asks for when it starts: it sends no credentials."""
    routes = APIRouter(responses=errors_as(ErrorSentence))

    @routes.head("/.well-known/live", status_code=204, include_in_schema=False)
    @routes.get("/.well-known/live", summary="Is the process alive? As Weaviate asks", status_code=204)
    async def live() -> Response:
        """Liveness: 204 if the event loop of this worker responds."""
        return Response(status_code=204)

    @routes.head("/.well-known/ready", status_code=204, include_in_schema=False)
    @routes.get("/.well-known/ready", summary="Is the model ready? As Weaviate asks", status_code=204)
    async def ready(request: Request) -> Response:
        """Readiness: 204 if the engine is running and the model is served, and 503 or 404 otherwise."""
        service.resolve(model_of(request))
        if not service.ready:
            raise Unhealthy("the engine is not ready (yet), or the server stops")
        return Response(status_code=204)

    @routes.get("/meta", summary="Describe the model as Weaviate asks", response_model=dict[str, Any])
    async def meta(request: Request) -> Response:
        """The default model (or, at `/m/{model}/meta`, that model). Weaviate shows this at its own `/v1/meta`."""
        spec = await service.describe(model_of(request))
        return json_response(orjson.dumps(_described(spec)))

    return routes


def _text(text: str) -> TextInput:
    """A text as it may be in an object. Weaviate also sends empty properties; their tokens are those of a blank."""
    return TextInput(text or " ")


def _described(spec: ModelSpec) -> dict[str, Any]:
    tower = spec.tower
    return {
        "model": spec.name,
        "model_id": served_name(spec.id),
        "revision": spec.revision,
        "model_type": spec.model_type,
        "modalities": spec.modalities,
        "dim": tower.outputs[tower.pooling],
        "server": f"IEI {__version__}",
    }


def _vectors_examples(spec: ModelSpec) -> dict[str, object]:
    examples: dict[str, object] = {}
    if spec.image:
        examples["an image, as from img2vec-neural"] = {"id": "0", "image": SAMPLES["image"][0]}
    if spec.text:
        examples["a text, as from text2vec-transformers"] = {
            "text": SAMPLES["text"][0],
            "config": {"pooling_strategy": "masked_mean", "task_type": "query"},
        }
    return examples


def _vectorize_examples(spec: ModelSpec) -> dict[str, object]:
    fields = {f"{modality}s": SAMPLES[modality] for modality in spec.modalities}
    return {" and ".join(fields): fields}
