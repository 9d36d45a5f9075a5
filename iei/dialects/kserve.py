"""The Open Inference Protocol, version 2, of KServe and Triton: JSON, and tensors in binary.

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
from iei.dialects.wire import json_list, json_response, media_type, one_kind_of_fault, timing_headers
from iei.errors import IEIError, InvalidInput, ModelNotFound, Unhealthy
from iei.models.spec import POOLED, ModelSpec
from iei.service import Embedder, ImageInput, Input, Options, TextInput, Vectors

T = TypeVar("T")

VERSION = "1"
"""Of every model: the protocol wants one, and here a model's revision is a matter of the server's settings."""


class InferError(BaseModel):
    error: str


def error_body(error: IEIError) -> bytes:
    return orjson.dumps({"error": error.message})


def router(embedder: Embedder) -> APIRouter:
    routes = APIRouter(tags=["KServe V2"], prefix="/v2", responses=errors_as(InferError))

    @routes.get("")
    async def server() -> dict[str, Any]:
        return {"name": "iei", "version": __version__, "extensions": ["binary_tensor_data"]}

    @routes.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/health/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": _is_ready(embedder)}

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        return {"models": list(embedder.catalog.names)}

    async def named(model: str) -> str:
        return embedder.catalog.resolve(model)

    async def versioned(model: str, version: str) -> str:
        if version != VERSION:
            raise ModelNotFound(f"model {model[:100]!r} has only version {VERSION}, and not {version[:100]!r}")
        return await named(model)

    # A model's name may have slashes in it, so the longer paths have to be tried first.
    routes.include_router(_model_routes(embedder, versioned), prefix="/models/{model:path}/versions/{version}")
    routes.include_router(_model_routes(embedder, named), prefix="/models/{model:path}")
    return routes


def _model_routes(embedder: Embedder, served: Callable[..., Awaitable[str]]) -> APIRouter:
    routes = APIRouter()

    @routes.get("/ready")
    async def ready(name: str = Depends(served)) -> dict[str, Any]:
        """Whether it can be served: it is loaded first, unless it ever was."""
        ready = _is_ready(embedder)
        await embedder.describe(name)
        return {"name": name, "ready": ready}

    @routes.post(
        "/infer",
        openapi_extra=documented(InferRequest, _examples(embedder.engine.default), _BINARY),
        response_model=InferResponse,
    )
    async def infer(request: Request, name: str = Depends(served)) -> Response:
        """Also takes binary tensors after the JSON (Inference-Header-Content-Length), or one image file as the body."""
        with one_kind_of_fault():
            return await _inferred(embedder, name, request)

    @routes.get("")
    async def metadata(name: str = Depends(served)) -> dict[str, Any]:
        return _metadata(await embedder.describe(name))

    return routes


def _is_ready(embedder: Embedder) -> bool:
    if not embedder.engine.ready:
        raise Unhealthy("the engine is not there (yet)")
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


async def _inferred(embedder: Embedder, model: str, request: Request) -> Response:
    call = read_call(
        await request.body(),
        media_type(request),
        request.headers.get(HEADER_LENGTH),
        max_elements=embedder.settings.max_inputs,
    )
    wanted = _wanted(call)
    field, inputs = _inputs(call)
    pooling = _option(call, "pooling_strategy", _POOLINGS) or "default"
    options = Options(model=model, outputs=(pooling,), normalize=_option(call, "normalize", _FLAGS))
    embeddings = await embedder.embed(inputs, options, field=field)
    vectors = np.stack([item.vector for item in embeddings.items])
    outputs = [Output(name, await _OUTPUTS[name](vectors, model), binary) for name, binary in wanted.items()]
    fields = {"model_name": model, "model_version": VERSION, "id": call.id or uuid.uuid4().hex}
    content, header_length = await write_response(fields, outputs)
    if header_length is None:
        return json_response(content, headers=timing_headers(embeddings))
    headers = {**timing_headers(embeddings), HEADER_LENGTH: str(header_length)}
    return Response(content, headers=headers, media_type="application/octet-stream")


def _inputs(call: Call) -> tuple[str, list[Input]]:
    """The tensor that has the inputs, and what they are."""
    given = call.inputs.keys() - _OPTIONS
    if len(given) != 1 or not given <= _SOURCES.keys():
        raise InvalidInput(
            "inputs: one tensor of inputs is wanted, `image` or `text`, and beside it only "
            f"{', '.join(_OPTIONS)}; there are: {', '.join(sorted(call.inputs))[:200]}"
        )
    (name,) = given
    return name, [_SOURCES[name](element) for element in call.inputs[name]]


def _image(element: Element) -> Input:
    """Base64, a data URI or a URL may come in a binary tensor, too. Files have bytes that no text has."""
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
}
_OPTIONS = ("pooling_strategy", "normalize", "include_raw")


def _option(call: Call, name: str, values: Mapping[str, T]) -> T | None:
    """The one element of an optional tensor, as one of `values`."""
    if name not in call.inputs:
        return None
    words = [_text(element).strip().lower() for element in call.inputs[name]]
    if len(words) != 1 or words[0] not in values:
        raise InvalidInput(f"{name}: one element is wanted, of {', '.join(values)}")
    return values[words[0]]


_POOLINGS = {name: name for name in POOLED}
_FLAGS = {"true": True, "false": False}


def _wanted(call: Call) -> dict[str, bool]:
    """Outputs that are wanted → whether in binary."""
    if unknown := call.outputs.keys() - _OUTPUTS.keys():
        raise InvalidInput(f"outputs: there is no {', '.join(sorted(unknown))[:200]}; there are {', '.join(_OUTPUTS)}")
    names = call.outputs or {"output": None}
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
    "application/octet-stream": "The JSON, with binary tensors after it (Inference-Header-Content-Length); or an image",
    "image/*": "The file of one image",
}
"""What else the body may be."""


def _examples(spec: ModelSpec) -> dict[str, object]:
    examples: dict[str, object] = {}
    for modality in spec.modalities:
        tower = spec.tower_for(modality)
        assert tower is not None
        examples[f"one {modality}"] = {"inputs": [_tensor(modality, SAMPLES[modality][0])]}
        examples[f"two {modality}s: vectors as FP32, of length 1, by a pooling of one's choice"] = {
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
