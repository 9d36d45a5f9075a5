"""Ollama's API, as far as it is about embeddings: `/api/embed`, `/api/embeddings`, and the models' descriptions.

Wire format: docs/api/ollama.md.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.fields import OrNull, Strings
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.partial import ONE_INPUT, OnErrorField, check_whole, errors_of, on_error
from iei.dialects.plain_errors import BadSentence, ErrorSentence, as_error
from iei.dialects.registry import Dialect
from iei.dialects.wire import (
    json_limits,
    json_list,
    json_response,
    model_of,
    one_kind_of_fault,
    result_headers,
    validated,
)
from iei.errors import ModelNotFound
from iei.models.spec import ModelSpec
from iei.requests import ImageInput, Input, Options, TextInput
from iei.service import EmbeddingService
from iei.settings import DialectSettings

M = TypeVar("M", bound=BaseModel)

API_VERSION = "0.11.11"
"""The version of Ollama that brought the youngest field served here, `dimensions`. Clients compare it with theirs."""
TAG = ":latest"
"""Clients may add it to any name, and leave it out of those that `/api/tags` lists."""

ModelName = Annotated[str, OrNull]


class EmbedRequest(BaseModel):
    """The body of a request to `/api/embed`. `options` and `keep_alive` are ignored."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: ModelName = ""
    """One of the names that /api/tags lists. Default: the first."""
    input: Annotated[Strings, BeforeValidator(lambda value: [] if value in (None, "") else value)] = []
    """A text or a list of texts. Data URIs of images are images. Nothing: the model is loaded."""
    truncate: Annotated[bool, OrNull] = True
    """Truncate texts that are too long instead of rejecting them."""
    dimensions: Annotated[int, OrNull] = 0
    """Truncate each vector to this many leading values, before it is normalised. 0: all."""
    on_error: OnErrorField = None
    """What a bad input costs: `fail`, the whole request (the default); `null`, its own vector only."""


class EmbedResponse(BaseModel):
    """The body of a response of `/api/embed`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str
    embeddings: list[list[float] | None]
    """One vector of length 1 for each input."""
    total_duration: int | None = None
    """Nanoseconds."""
    load_duration: int | None = None
    """Nanoseconds."""
    prompt_eval_count: int | None = None
    """Tokens of the texts, and patches of the images."""
    errors: list[BadSentence] | None = None
    """Inputs without a vector, where the request has `on_error: null`."""


class EmbeddingsRequest(BaseModel):
    """The body of a request to `/api/embeddings`. `options` and `keep_alive` are ignored."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: ModelName = ""
    """One of the names that /api/tags lists. Default: the first."""
    prompt: Annotated[str, OrNull] = ""
    """A text, or the data URI of an image. Nothing: the model is loaded."""


class EmbeddingsResponse(BaseModel):
    """The body of a response of `/api/embeddings`."""

    embedding: list[float]


class ShowRequest(BaseModel):
    """The body of a request to `/api/show`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: ModelName = ""
    """One of the names that /api/tags lists. Default: the first."""
    name: ModelName = ""
    """The old name of `model`."""


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes. It has no settings."""
    routes = APIRouter(prefix="/api", responses=errors_as(ErrorSentence))
    started = datetime.now(UTC).isoformat()
    default = service.default

    @routes.post(
        "/embed",
        summary="Embed texts and images as Ollama does",
        openapi_extra=documented(EmbedRequest, _examples(default, "input")),
        response_model=EmbedResponse,
    )
    async def embed(request: Request) -> Response:
        """One vector of length 1 for each text or image."""
        began = time.perf_counter_ns()
        with one_kind_of_fault():
            body = await _read(request, EmbedRequest)
            spec = await described(request, body.model)
            loaded = time.perf_counter_ns()
            answer: dict[str, Any] = {"model": body.model or spec.name, "embeddings": []}
            if not body.input:
                return json_response(orjson.dumps(answer))
            options = Options(
                model=spec.name,
                normalize=True,
                truncate=body.truncate,
                dimensions=max(body.dimensions, 0) or None,
                on_error=on_error(request, body.on_error),
            )
            embeddings = await service.embed([_input(item) for item in body.input], options, field="input")
        answer = {
            **answer,
            "embeddings": orjson.Fragment(await json_list(embeddings.vectors)),
            "total_duration": time.perf_counter_ns() - began,
            "load_duration": loaded - began,
            "prompt_eval_count": sum(item.tokens for item in embeddings.done),
            **errors_of(embeddings.errors.items(), as_error),
        }
        return json_response(orjson.dumps(answer), headers=result_headers(embeddings))

    @routes.post(
        "/embeddings",
        summary="Embed one text as Ollama's older clients ask",
        openapi_extra=documented(EmbeddingsRequest, _examples(default, "prompt")),
        response_model=EmbeddingsResponse,
    )
    async def embeddings(request: Request) -> Response:
        """The vector of one text or image, of length 1, for clients that don't know `/api/embed` yet."""
        with one_kind_of_fault():
            check_whole(request, ONE_INPUT)
            body = await _read(request, EmbeddingsRequest)
            spec = await described(request, body.model)
            if not body.prompt:
                return json_response(b'{"embedding":[]}')
            options = Options(model=spec.name, normalize=True, truncate=True)
            embeddings = await service.embed([_input(body.prompt)], options, names=("prompt",))
        content = orjson.dumps({"embedding": embeddings.done[0].vector}, option=orjson.OPT_SERIALIZE_NUMPY)
        return json_response(content, headers=result_headers(embeddings))

    @routes.head("/tags", include_in_schema=False)
    @routes.get("/tags", summary="List the models as Ollama does")
    async def tags() -> dict[str, Any]:
        """The models that are served. The first is the default of the routes that name no model."""
        return {"models": [_listed(name, started, default) for name in service.model_names]}

    @routes.post(
        "/show",
        summary="Describe one model as Ollama does",
        openapi_extra=documented(ShowRequest, {"the default model": {"model": default.name}}),
        response_model=dict[str, Any],
    )
    async def show(request: Request) -> Response:
        """What is known of a model. One that has never been loaded is loaded first."""
        with one_kind_of_fault():
            body = await _read(request, ShowRequest)
            spec = await described(request, body.model or body.name)
        return json_response(orjson.dumps({"modified_at": started, **_shown(spec)}))

    @routes.head("/version", include_in_schema=False)
    @routes.get("/version", summary="Name the version as Ollama does")
    async def version() -> dict[str, str]:
        """The version of Ollama's API that is served."""
        return {"version": API_VERSION}

    async def described(request: Request, named: str) -> ModelSpec:
        return await service.describe(_resolved(service, model_of(request, named)))

    return Dialect("Ollama", as_error, routes, prefix="/api/", about="Embeddings as Ollama's API.")


def _resolved(service: EmbeddingService, name: str | None) -> str | None:
    """The served name that `name` means, with the tag or without.

    Raises:
        ModelNotFound: with the words that Ollama's clients look for.
    """
    if name is None:
        return None
    for candidate in (name, name.removesuffix(TAG), name + TAG):
        with suppress(ModelNotFound):
            return service.resolve(candidate)
    raise ModelNotFound(f"model '{name[:100]}' not found; this server has {', '.join(service.model_names)}")


def _input(item: str) -> Input:
    """Whatever the model is: a text sent to a model of images should be refused, not read as base64."""
    return ImageInput(item) if item[:11].lower() == "data:image/" else TextInput(item)


def _tagged(name: str) -> str:
    return name if ":" in name else name + TAG


def _listed(name: str, started: str, default: ModelSpec) -> dict[str, Any]:
    """An entry of `/api/tags`. Only of the default model more than its name is known without loading it."""
    return {
        "name": _tagged(name),
        "model": _tagged(name),
        "modified_at": started,
        "size": 0,
        "digest": sha256(name.encode()).hexdigest(),
        "details": _details(default if name == default.name else None),
    }


def _details(spec: ModelSpec | None) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": spec.model_type if spec else "",
        "families": [spec.model_type] if spec else [],
        "parameter_size": f"{spec.parameters / 1e6:.1f}M" if spec else "",
        "quantization_level": spec.dtype if spec else "",
    }


def _shown(spec: ModelSpec) -> dict[str, Any]:
    """The description of a model, with its lengths under the names that Ollama has from GGUF files."""
    tower = spec.text or spec.tower
    info: dict[str, Any] = {
        "general.architecture": spec.model_type,
        "general.parameter_count": spec.parameters,
        f"{spec.model_type}.embedding_length": tower.outputs[tower.pooling],
    }
    if spec.text:
        info[f"{spec.model_type}.context_length"] = spec.text.max_tokens
    return {"details": _details(spec), "model_info": info, "capabilities": ["embedding"]}


def _examples(spec: ModelSpec, field: str) -> dict[str, object]:
    examples: dict[str, object] = {
        f"one {modality}": {"model": spec.name, field: SAMPLES[modality][0]} for modality in spec.modalities
    }
    if field == "input":
        samples = list(SAMPLES[spec.modalities[0]])
        examples["two at once, vectors of 8 values"] = {"model": spec.name, "input": samples, "dimensions": 8}
    return examples


async def _read(request: Request, model: type[M]) -> M:
    """The body, whatever its Content-Type: Ollama reads none, and its documentation has `curl -d` without one."""
    return await validated(await request.body(), model, json_limits(request))
