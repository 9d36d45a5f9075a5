"""The service behind Qdrant's server-side inference: texts and images of several models in one request.

Wire format: docs/api/qdrant.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.fields import AnyCase, ListOf, OrNull
from iei.dialects.items import TextOptions, Truncation
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.partial import OnErrorField, errors_of, on_error
from iei.dialects.plain_errors import BadSentence, ErrorSentence, as_error
from iei.dialects.prompts import prompts_for
from iei.dialects.registry import Dialect
from iei.dialects.wire import json_list, json_response, model_of, one_kind_of_fault, parsed, result_headers
from iei.errors import EmptyInput, IEIError, InvalidField, InvalidInput, InvalidInputs, ModelNotFound
from iei.models.spec import Modality, ModelSpec, Pooling
from iei.requests import Embedding, Embeddings, ImageInput, Input, Options, TextInput
from iei.service import EmbeddingService
from iei.settings import DialectSettings

_PURPOSES: Mapping[str | None, str] = {"update": "document", "search": "query"}
"""What the vectors are for → what the texts are, as `prompts_for` has it."""


class InferenceOptions(TextOptions):
    """The `options` that a user gives with a text or an image. Others are ignored."""

    truncate: Truncation | None = True
    """Truncate texts that are too long instead of rejecting them, as Qdrant's own clients do."""
    dimensions: int | None = Field(default=None, ge=1)
    """Truncate each vector to this many leading values, before it is normalised."""
    pooling: Annotated[Pooling | Literal["patches", "tokens"], AnyCase] | None = None
    """How token vectors become one vector. `patches` and `tokens` keep them all: the result is a multivector."""


class InferenceInput(BaseModel):
    """One text or image, with the model that is to embed it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    data: Any
    """A text; or an image as base64, a data URI or a URL."""
    data_type: Literal["text", "image", "object"]
    """What `data` is. Objects are not offered."""
    model: str | None = None
    """A served name or id."""
    options: Annotated[InferenceOptions, OrNull] = InferenceOptions()

    @model_validator(mode="after")
    def _is_offered(self) -> InferenceInput:
        if self.data_type == "object":
            raise ValueError("objects are not offered: send a text or an image")
        if not isinstance(self.data, str):
            raise ValueError(f"an input of type {self.data_type} must be a string")
        return self

    @property
    def input(self) -> Input:
        """What to embed."""
        return TextInput(self.data) if self.data_type == "text" else ImageInput(self.data)


class InferenceRequest(BaseModel):
    """The body of a request from Qdrant."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    inputs: ListOf[InferenceInput]
    """Texts and images, also for different models."""
    inference: Annotated[Literal["update", "search"], AnyCase] | None = None
    """What the vectors are for: to be stored or to search. It chooses the model's prompt, if it has such prompts."""
    on_error: OnErrorField = None
    """What a bad input costs: `fail`, the whole request (the default); `null`, its own vector only."""


class ModelUsage(BaseModel):
    """Tokens of texts and patches of images that a model has embedded."""

    tokens: int


class InferenceUsage(BaseModel):
    """Usage of each model."""

    models: dict[str, ModelUsage]


class InferenceResponse(BaseModel):
    """The vectors, in the order of the inputs."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    embeddings: list[list[float] | list[list[float]] | None]
    usage: InferenceUsage
    errors: list[BadSentence] | None = None
    """Inputs without a vector, where the request has `on_error: null`."""


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's route, `/qdrant`. It has no settings."""
    routes = APIRouter(responses=errors_as(ErrorSentence))

    @routes.post(
        "/qdrant",
        summary="Embed texts and images as Qdrant's inference asks",
        openapi_extra=documented(InferenceRequest, _examples(service.default)),
        response_model=InferenceResponse,
    )
    async def infer(request: Request) -> Response:
        """One vector of length 1 for each input, in their order, whatever their models."""
        with one_kind_of_fault():  # of all client errors, Qdrant passes on the message of 400 only
            body = await parsed(request, InferenceRequest)
            groups = _groups(service, request, body)
        embedded = await _all(service, [(options, indices, body.inputs) for options, indices in groups.items()])
        items: dict[int, Embedding | None] = {}
        errors: dict[int, IEIError] = {}
        tokens: dict[str, int] = {}
        for indices, embeddings in zip(groups.values(), embedded, strict=True):
            items.update(zip(indices, embeddings.items, strict=True))
            errors.update((indices[index], error) for index, error in embeddings.errors.items())
            name = embeddings.spec.name
            tokens[name] = tokens.get(name, 0) + sum(item.tokens for item in embeddings.done)
        merged = _merged(embedded, [items[index] for index in range(len(items))], dict(sorted(errors.items())))
        content = {
            "embeddings": orjson.Fragment(await json_list(merged.vectors)),
            "usage": {"models": {name: {"tokens": count} for name, count in tokens.items()}},
            **errors_of(merged.errors.items(), as_error),
        }
        return json_response(orjson.dumps(content), headers=result_headers(merged))

    return Dialect("Qdrant", as_error, routes, prefix="/qdrant", about="What Qdrant calls for server-side inference.")


def _groups(service: EmbeddingService, request: Request, body: InferenceRequest) -> dict[Options, list[int]]:
    """Options, the model among them → indices of the inputs that have these: each group is embedded by one call.

    Raises:
        EmptyInput: there are no inputs.
        InvalidField: there are more than a request may have. It is the sum that is limited, not each group.
        InvalidInputs: models that are not served here.
    """
    if not body.inputs:
        raise EmptyInput("inputs is empty: send at least one item", "inputs")
    if len(body.inputs) > service.max_inputs:
        raise InvalidField(
            f"inputs has {len(body.inputs)} items, over the limit of {service.max_inputs} (IEI_MAX_INPUTS)", "inputs"
        )
    groups: dict[Options, list[int]] = {}
    unknown: dict[int, IEIError] = {}
    wanted = on_error(request, body.on_error)
    for index, item in enumerate(body.inputs):
        try:
            model = service.resolve(model_of(request, item.model))
        except ModelNotFound as error:
            unknown[index] = InvalidInput(error.message)
            continue
        options = item.options.options(
            model=model,
            outputs=(item.options.pooling or "default",),
            normalize=True,
            dimensions=item.options.dimensions,
            prompt_hints=prompts_for(_PURPOSES.get(body.inference)),
            on_error=wanted,
        )
        groups.setdefault(options, []).append(index)
    if unknown:
        raise InvalidInputs(unknown)
    return groups


async def _all(
    service: EmbeddingService, groups: Sequence[tuple[Options, list[int], Sequence[InferenceInput]]]
) -> list[Embeddings]:
    """The embeddings of all groups, which are computed at the same time. The first error cancels the others."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(_of_group(service, *group)) for group in groups]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in running]


async def _of_group(
    service: EmbeddingService, options: Options, indices: list[int], inputs: Sequence[InferenceInput]
) -> Embeddings:
    """The embeddings of the inputs at `indices`; errors name them by these."""
    names = [f"inputs[{index}]" for index in indices]
    try:
        return await service.embed([inputs[index].input for index in indices], options, names=names)
    except InvalidField as error:
        raise InvalidInput(f"{names[0]}: {error.message}", error.field) from None


def _merged(
    embedded: Sequence[Embeddings], items: list[Embedding | None], errors: Mapping[int, IEIError]
) -> Embeddings:
    """All `items`, with timings that are means over those that were computed."""
    computed = [embeddings for embeddings in embedded if embeddings.timings]
    count = sum(len(embeddings.done) for embeddings in computed)
    timings = {
        stage: sum(each.timings[stage] * len(each.done) for each in computed) / count
        for stage in (computed[0].timings if computed else ())
    }
    return replace(embedded[0], items=items, timings=timings, errors=errors)


def _examples(spec: ModelSpec) -> dict[str, object]:
    def inputs(modality: Modality, **options: object) -> list[dict[str, object]]:
        fields = {"data_type": modality, "model": spec.name, "options": options or None}
        return [{"data": data, **fields} for data in SAMPLES[modality]]

    examples: dict[str, object] = {
        f"{modality}s to be stored": {"inputs": inputs(modality), "inference": "update"} for modality in spec.modalities
    }
    examples["a search, with shorter vectors"] = {
        "inputs": inputs(spec.modalities[0], dimensions=8)[:1],
        "inference": "search",
    }
    return examples
