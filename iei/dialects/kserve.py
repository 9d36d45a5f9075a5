"""The Open Inference Protocol (KServe V2) of KServe and Triton, with its extension for binary tensors.

Wire format: docs/api/kserve.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from iei import __version__
from iei.dialects.kserve_binary import HEADER_LENGTH
from iei.dialects.kserve_message import Call, Element, InferRequest, InferResponse, Output, read_call, write_response
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.registry import Dialect
from iei.dialects.wire import json_list, json_response, media_type, one_kind_of_fault, result_headers
from iei.errors import IEIError, InvalidInput, ModelNotFound, Unhealthy
from iei.models.spec import POOLED, ModelSpec
from iei.requests import ImageInput, Input, Options, TextInput, Vectors
from iei.service import EmbeddingService
from iei.settings import DialectSettings

T = TypeVar("T")

VERSION = "1"
"""The version of every model. The protocol requires one; here the revision of a model is a server setting."""


class InferError(BaseModel):
    """The body of an error."""

    error: str


def error_body(error: IEIError) -> bytes:
    """The JSON body of an error response."""
    return orjson.dumps({"error": error.message})


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes. It has no settings."""
    return Dialect("KServe V2", error_body, _router(service), _health_router(service), prefix="/v2")


def _health_router(service: EmbeddingService) -> APIRouter:
    routes = APIRouter(tags=["KServe V2"], prefix="/v2/health", responses=errors_as(InferError))

    @routes.get("/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": _is_ready(service)}

    return routes


def _router(service: EmbeddingService) -> APIRouter:
    routes = APIRouter(tags=["KServe V2"], prefix="/v2", responses=errors_as(InferError))

    @routes.get("")
    async def server() -> dict[str, Any]:
        return {"name": "iei", "version": __version__, "extensions": ["binary_tensor_data"]}

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        return {"models": list(service.model_names)}

    async def named(model: str) -> str:
        return service.resolve(model)

    async def versioned(model: str, version: str) -> str:
        if version != VERSION:
            raise ModelNotFound(f"model {model[:100]!r} has only version {VERSION}, not {version[:100]!r}")
        return await named(model)

    # `{model:path}` also matches slashes, so the longer paths must be tried first.
    routes.include_router(_model_routes(service, versioned), prefix="/models/{model:path}/versions/{version}")
    routes.include_router(_model_routes(service, named), prefix="/models/{model:path}")
    return routes


def _model_routes(service: EmbeddingService, served: Callable[..., Awaitable[str]]) -> APIRouter:
    routes = APIRouter()

    @routes.get("/ready")
    async def ready(name: str = Depends(served)) -> dict[str, Any]:
        """Whether the model can be served. A model that has never been loaded is loaded first."""
        ready = _is_ready(service)
        await service.describe(name)
        return {"name": name, "ready": ready}

    @routes.post(
        "/infer",
        openapi_extra=documented(InferRequest, _examples(service.default), _BINARY),
        response_model=InferResponse,
    )
    async def infer(request: Request, name: str = Depends(served)) -> Response:
        """Also accepts binary tensors after the JSON (Inference-Header-Content-Length), or an image file as body."""
        with one_kind_of_fault():
            return await _inferred(service, name, request)

    @routes.get("")
    async def metadata(name: str = Depends(served)) -> dict[str, Any]:
        return _metadata(await service.describe(name))

    return routes


def _is_ready(service: EmbeddingService) -> bool:
    if not service.ready:
        raise Unhealthy("the engine is not ready (yet)")
    return True


def _metadata(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "versions": [VERSION],
        "platform": spec.runtime,
        "inputs": [
            *({"name": name, "datatype": "BYTES", "shape": [-1]} for name in spec.modalities),
            *({"name": name, "datatype": "BYTES", "shape": [1]} for name in _OPTIONS),
        ],
        "outputs": [
            {"name": "output", "datatype": "BYTES", "shape": [1]},
            {"name": "embedding", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "raw_embeddings", "datatype": "FP32", "shape": [-1, -1]},
        ],
    }


async def _inferred(service: EmbeddingService, model: str, request: Request) -> Response:
    call = read_call(
        await request.body(),
        media_type(request),
        request.headers.get(HEADER_LENGTH),
        max_elements=service.max_inputs,
    )
    wanted = _wanted(call)
    field, inputs = _inputs(call)
    pooling = _option(call, "pooling_strategy", _POOLINGS) or "default"
    options = Options(model=model, outputs=(pooling,), normalize=_option(call, "normalize", _FLAGS))
    embeddings = await service.embed(inputs, options, field=field)
    vectors = np.stack([item.vector for item in embeddings.items])
    outputs = [Output(name, await _OUTPUTS[name](vectors, model), binary) for name, binary in wanted.items()]
    fields = {"model_name": model, "model_version": VERSION, "id": call.id or uuid.uuid4().hex}
    content, header_length = await write_response(fields, outputs)
    if header_length is None:
        return json_response(content, headers=result_headers(embeddings))
    headers = {**result_headers(embeddings), HEADER_LENGTH: str(header_length)}
    return Response(content, headers=headers, media_type="application/octet-stream")


def _inputs(call: Call) -> tuple[str, list[Input]]:
    """The name of the tensor that holds the inputs, and the inputs."""
    given = call.inputs.keys() - _OPTIONS
    if len(given) != 1 or not given <= _SOURCES.keys():
        raise InvalidInput(
            "inputs: must have exactly one of the tensors `image`, `text` and `input_text`, and besides it only "
            f"{', '.join(_OPTIONS)}; got: {', '.join(sorted(call.inputs))[:200]}"
        )
    (name,) = given
    return name, [_SOURCES[name](element) for element in call.inputs[name]]


def _image(element: Element) -> Input:
    """An image file, or a string. Binary tensors may hold strings too; only files have NUL or non-ASCII bytes."""
    if isinstance(element, bytes) and (b"\0" in element or not element.isascii()):
        return ImageInput(element)
    return ImageInput(_text(element))


def _text(element: Element) -> str:
    try:
        return element.decode() if isinstance(element, bytes) else str(element)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"an element of a tensor is not UTF-8: {error}") from None


_SOURCES: Mapping[str, Callable[[Element], Input]] = {
    "image": _image,
    "text": lambda element: TextInput(_text(element)),
    "input_text": lambda element: TextInput(_text(element)),
}
"""Name of a tensor of inputs → what its elements are. `input_text` is LiteLLM's name for texts."""
_OPTIONS = ("pooling_strategy", "normalize", "include_raw")


def _option(call: Call, name: str, values: Mapping[str, T]) -> T | None:
    """The value of an option: the only element of its tensor, looked up in `values`. None if there is no tensor."""
    if name not in call.inputs:
        return None
    words = [_text(element).strip().lower() for element in call.inputs[name]]
    if len(words) != 1 or words[0] not in values:
        raise InvalidInput(f"{name}: must have one element, one of {', '.join(values)}")
    return values[words[0]]


_POOLINGS = {name: name for name in POOLED}
_FLAGS = {"true": True, "false": False}


def _wanted(call: Call) -> dict[str, bool]:
    """Requested outputs → whether to send them in binary."""
    if unknown := call.outputs.keys() - _OUTPUTS.keys():
        raise InvalidInput(f"outputs: there is no {', '.join(sorted(unknown))[:200]}; there are {', '.join(_OUTPUTS)}")
    # LiteLLM names no outputs, and expects one tensor of vectors.
    names = call.outputs or {"embedding" if "input_text" in call.inputs else "output": None}
    if _option(call, "include_raw", _FLAGS):
        names = {**names, "raw_embeddings": names.get("raw_embeddings")}
    return {name: call.binary_output if binary is None else binary for name, binary in names.items()}


async def _as_json(vectors: Vectors, model: str) -> bytes:
    fields = {"embedding_dim": vectors.shape[1], "embeddings": orjson.Fragment(await json_list(vectors))}
    return orjson.dumps({**fields, "model_id": model, "shape": vectors.shape})


async def _as_it_is(vectors: Vectors, model: str) -> Vectors:
    return vectors


_OUTPUTS: Mapping[str, Callable[[Vectors, str], Awaitable[bytes | Vectors]]] = {
    "output": _as_json,
    "embedding": _as_it_is,
    "raw_embeddings": _as_it_is,
}

_BINARY = {
    "application/octet-stream": "JSON followed by binary tensors (Inference-Header-Content-Length), or an image file",
    "image/*": "One image file",
}
"""Media types of the body other than JSON → description, for the OpenAPI document."""


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
