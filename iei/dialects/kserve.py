"""The Open Inference Protocol (KServe V2) of KServe and Triton, with its extension for binary tensors.

Wire format: docs/api/kserve.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from iei import __version__
from iei.dialects.kserve_binary import HEADER_LENGTH
from iei.dialects.kserve_infer import VERSION, check_version, infer, metadata
from iei.dialects.kserve_message import Call, InferRequest, InferResponse, Output, read_call, write_response
from iei.dialects.openapi import SAMPLES, documented, errors_as, in_path
from iei.dialects.partial import on_error
from iei.dialects.plain_errors import ErrorSentence, as_error
from iei.dialects.registry import Dialect
from iei.dialects.wire import json_limits, json_response, media_type, one_kind_of_fault, result_headers
from iei.errors import ModelNotFound, RouteError, Unhealthy
from iei.models.spec import ModelSpec
from iei.service import EmbeddingService
from iei.settings import DialectSettings


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes. It has no settings."""
    return Dialect(
        "KServe V2",
        as_error,
        _router(service),
        _health_router(service),
        prefix="/v2",
        about="The Open Inference Protocol of KServe and Triton, with binary tensors.",
    )


def _health_router(service: EmbeddingService) -> APIRouter:
    routes = APIRouter(prefix="/v2/health", responses=errors_as(ErrorSentence))

    @routes.get("/live", summary="Is the server alive? As KServe and Triton ask")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/ready", summary="Is the server ready? As KServe and Triton ask")
    async def ready() -> dict[str, bool]:
        return {"ready": _is_ready(service)}

    return routes


def _router(service: EmbeddingService) -> APIRouter:
    routes = APIRouter(prefix="/v2", responses=errors_as(ErrorSentence))

    @routes.get("", summary="Name the server and its extensions")
    async def server() -> dict[str, Any]:
        return {"name": "iei", "version": __version__, "extensions": ["binary_tensor_data"]}

    @routes.get("/models", summary="List the models")
    async def models() -> dict[str, Any]:
        return {"models": list(service.model_names)}

    path = in_path(service.default.name)

    async def named(model: str = path) -> str:
        try:
            return service.resolve(model)
        except ModelNotFound:
            _check_route(service, model)
            raise

    async def versioned(model: str = path, version: str = in_path(VERSION)) -> str:
        check_version(model, version)
        return await named(model)

    # `{model:path}` also matches slashes, so the longer paths must be tried first.
    routes.routes += _model_routes(service, versioned, "/v2/models/{model:path}/versions/{version}").routes
    routes.routes += _model_routes(service, named, "/v2/models/{model:path}").routes
    return routes


def _check_route(service: EmbeddingService, path: str) -> None:
    """Raises RouteError if `path` is a model's name and what follows it in a route that there is not.

    `{model:path}` takes in both, and a name of `clip/config` would not be what is wrong.
    """
    for at in (at for at, character in enumerate(path) if character == "/"):
        with suppress(ModelNotFound):
            name, rest = service.resolve(path[:at]), path[at:]
            raise RouteError(
                f"Not Found: the model {name!r} has no {rest[:100]!r}; below /v2/models/{name} there are /ready, "
                f"/infer and /versions/{VERSION}",
                404,
                {},
            )


def _model_routes(service: EmbeddingService, served: Callable[..., Awaitable[str]], prefix: str) -> APIRouter:
    routes = APIRouter(prefix=prefix, responses=errors_as(ErrorSentence))

    @routes.get("/ready", summary="Is the model ready? It is loaded if it must be")
    async def ready(name: str = Depends(served)) -> dict[str, Any]:
        """Whether the model can be served. A model that has never been loaded is loaded first."""
        ready = _is_ready(service)
        await service.describe(name)
        return {"name": name, "ready": ready}

    @routes.post(
        "/infer",
        summary="Embed images or texts as KServe and Triton do",
        openapi_extra=documented(InferRequest, _examples(service.default), _BINARY),
        response_model=InferResponse,
        responses=_BINARY_ANSWER,
    )
    async def inferred(request: Request, name: str = Depends(served)) -> Response:
        """Also accepts binary tensors after the JSON (Inference-Header-Content-Length), or an image file as body."""
        with one_kind_of_fault():
            return await _inferred(service, name, request)

    @routes.get("", summary="Describe the model's tensors")
    async def described(name: str = Depends(served)) -> dict[str, Any]:
        return metadata(await service.describe(name))

    return routes


def _is_ready(service: EmbeddingService) -> bool:
    if not service.ready:
        raise Unhealthy("the engine is not ready (yet), or the server stops")
    return True


async def _inferred(service: EmbeddingService, model: str, request: Request) -> Response:
    call = await read_call(
        await request.body(),
        media_type(request),
        request.headers.get(HEADER_LENGTH),
        max_elements=service.max_inputs,
        limits=json_limits(request),
    )
    # LiteLLM names no outputs, and expects one tensor of vectors.
    default = "embedding" if "input_text" in call.inputs else "output"
    inferred = await infer(service, model, call, default, on_error(request, call.on_error))
    outputs = [Output(name, content, _is_binary(call, name)) for name, content in inferred.outputs.items()]
    fields = {"model_name": model, "model_version": VERSION, "id": call.id or uuid.uuid4().hex}
    content, header_length = await write_response(fields, outputs)
    if header_length is None:
        return json_response(content, headers=result_headers(inferred.embeddings))
    headers = {**result_headers(inferred.embeddings), HEADER_LENGTH: str(header_length)}
    return Response(content, headers=headers, media_type="application/octet-stream")


def _is_binary(call: Call, output: str) -> bool:
    binary = call.outputs.get(output)
    return call.binary_output if binary is None else binary


_BINARY = {
    "application/octet-stream": "JSON followed by binary tensors (Inference-Header-Content-Length), or an image file",
    "image/*": "One image file",
}
"""Media types of the body other than JSON → description, for the OpenAPI document."""
_BINARY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
"""The answer where an output is to be binary: JSON, and the tensors after it."""


def _examples(spec: ModelSpec) -> dict[str, object]:
    examples: dict[str, object] = {}
    for modality in spec.modalities:
        tower = spec.tower_for(modality)
        assert tower is not None
        examples[f"one {modality}"] = {"inputs": [_tensor(modality, SAMPLES[modality][0])]}
        examples[f"two {modality}s: FP32 vectors of length 1, with an explicit pooling"] = {
            "inputs": [
                _tensor(modality, *SAMPLES[modality]),
                _tensor("pooling_strategy", tower.pooling),
                _tensor("normalize", "true"),
            ],
            "outputs": [{"name": "embedding"}],
        }
    return examples


def _tensor(name: str, *elements: str) -> dict[str, object]:
    return {"name": name, "shape": [len(elements)], "datatype": "BYTES", "data": elements}
