"""OpenAI's embeddings API, with what Imbeddings, NIM, infinity, Jina, vLLM, Voyage and llama.cpp add to its routes.

Wire format: docs/api/openai.md.
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.openai_answers import IMBEDDINGS, Answers, EmbeddingsResponse, IndexedVectors
from iei.dialects.openai_errors import EmbeddingsError, error_body
from iei.dialects.openai_request import EmbeddingsRequest
from iei.dialects.openapi import SAMPLES, documented, errors_as, in_path
from iei.dialects.registry import Dialect
from iei.dialects.token_ids import reader
from iei.dialects.wire import one_kind_of_fault, parsed
from iei.errors import Unhealthy
from iei.models.spec import ModelSpec
from iei.service import EmbeddingService
from iei.settings import DialectSettings


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes.

    Raises:
        StartupError: `IEI_TOKEN_IDS` names an encoding that can't be loaded.
    """
    routes = APIRouter(responses=errors_as(EmbeddingsError))
    answer = Answers(service, reader(settings.token_ids))
    created = int(time.time())

    @routes.post(
        "/v1/embeddings",
        summary="Embed texts and images as OpenAI does",
        openapi_extra=documented(EmbeddingsRequest, _examples(service.default)),
        response_model=EmbeddingsResponse | list[IndexedVectors],
    )
    @routes.post("/embeddings", include_in_schema=False)
    async def embeddings(request: Request) -> Response:
        """One vector of length 1 for each input; two, `cls` and `mean`, for each image object of Imbeddings."""
        with one_kind_of_fault():
            body = await parsed(request, EmbeddingsRequest)
            if not body.is_imbeddings:
                return await answer(request, body)
        return await answer(request, body)  # Imbeddings' clients expect 422 of a model without a class token

    @routes.post("/embeddings_image", include_in_schema=False)
    async def embeddings_image(request: Request) -> Response:
        """As `/embeddings`, with strings that are images: infinity's older route."""
        with one_kind_of_fault():
            body = await parsed(request, EmbeddingsRequest)
            return await answer(request, body.model_copy(update={"modality": "image"}))

    @routes.get("/v1/models", summary="List the models as OpenAI does")
    async def models() -> dict[str, Any]:
        """The models that are served. The first is the default of the routes that name no model."""
        return listed(owner="iei")

    @routes.get("/models", include_in_schema=False)
    async def models_of_infinity() -> dict[str, Any]:
        return listed(owner="infinity")  # its client accepts no other owner

    @routes.get("/v1/models/{model:path}", summary="Describe one model as OpenAI does")
    @routes.get("/models/{model:path}", include_in_schema=False)
    async def model(model: str = in_path(service.default.name)) -> dict[str, Any]:
        """One of the models that are served. 503 while the engine is not ready."""
        name = service.resolve(model)
        if not service.ready:
            raise Unhealthy("the engine is not ready (yet), or the server stops")
        return {**described(name, "iei"), "name": name, "ready": True}

    def listed(owner: str) -> dict[str, Any]:
        names = service.model_names
        return {"object": "list", "data": [described(name, owner) for name in names], "models": names}

    def described(name: str, owner: str) -> dict[str, Any]:
        fields = {"id": name, "object": "model", "created": created, "owned_by": owner, "root": None}
        known = _known(service.default) if name == service.default.name else {}
        return {**fields, "aliases": service.aliases(name), "stats": {}, **known}

    return Dialect(
        "OpenAI",
        error_body,
        routes,
        prefix="/v1/",
        about="Embeddings as OpenAI's API, with what NVIDIA NIM, infinity, Jina, vLLM, Voyage and Imbeddings add.",
    )


_CAPABILITIES = {"text": "embed", "image": "image_embed"}
"""Modality → infinity's word for a model that embeds it."""


def _known(spec: ModelSpec) -> dict[str, Any]:
    """What is listed of a model that is loaded. Others would have to be loaded to be described."""
    return {
        "backend": spec.runtime,
        "capabilities": [_CAPABILITIES[modality] for modality in spec.modalities],
        "architecture": {"input_modalities": spec.modalities},
    }


def _examples(spec: ModelSpec) -> dict[str, object]:
    model = {"model": spec.name}
    examples: dict[str, object] = {
        f"{modality}s, as in OpenAI's API": {**model, "input": SAMPLES[modality]} for modality in spec.modalities
    }
    sample = SAMPLES[spec.modalities[0]][0]
    examples["vectors as base64, as OpenAI's client requests them"] = {
        **model,
        "input": sample,
        "encoding_format": "base64",
        "dimensions": 8,
    }
    examples["NVIDIA NIM"] = {**model, "input": [sample], "input_type": "query", "truncate": "NONE"}
    examples["infinity"] = {"input": [sample], "modality": spec.modalities[0], "dimensions": 0}
    examples["Jina, vectors as int8"] = {
        **model,
        "input": [{modality: SAMPLES[modality][0]} for modality in spec.modalities],
        "embedding_type": "int8",
    }
    parts = {"image": {"type": "image_url", "image_url": {"url": sample}}, "text": {"type": "text", "text": sample}}
    message = {"role": "user", "content": [parts[spec.modalities[0]]]}
    examples["vLLM, a conversation as one input"] = {**model, "messages": [message]}
    if spec.image and spec.image.outputs.keys() >= set(IMBEDDINGS.values()):
        image = {"type": "image", "image_base64": SAMPLES["image"][0]}
        examples["images, as in Imbeddings"] = {**model, "input": [image]}
    return examples
