"""The Open Inference Protocol, whatever its transport: what models are in it, and input tensors to output tensors.

`kserve` has it over HTTP, `iei.grpc` over gRPC.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import orjson

from iei.dialects.kserve_message import Call, Element
from iei.dialects.partial import errors_of
from iei.dialects.plain_errors import as_error
from iei.dialects.wire import json_list
from iei.errors import InvalidInput, ModelNotFound
from iei.models.spec import POOLED, ModelSpec
from iei.requests import Embeddings, ImageInput, Input, OnError, Options, TextInput, Vectors
from iei.service import EmbeddingService

T = TypeVar("T")

VERSION = "1"
"""The version of every model. The protocol requires one; here the revision of a model is a server setting."""


def check_version(model: str, version: str) -> None:
    """Raises ModelNotFound if the model does not have this version."""
    if version != VERSION:
        raise ModelNotFound(f"model {model[:100]!r} has only version {VERSION}, not {version[:100]!r}")


def metadata(spec: ModelSpec) -> dict[str, Any]:
    """The model as the protocol describes it. -1 in a shape: any number."""
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


@dataclass(frozen=True, slots=True)
class Inferred:
    """The result of a request."""

    embeddings: Embeddings
    outputs: Mapping[str, bytes | Vectors]
    """Name → the element of a BYTES tensor of shape [1], or an FP32 tensor [n, dim]; in the order of the response."""


async def infer(service: EmbeddingService, model: str, call: Call, default: str, on_error: OnError) -> Inferred:
    """Computes the outputs that a request asks for.

    Args:
        service: computes embeddings.
        model: a served name.
        call: the request.
        default: the output of requests that name none.
        on_error: what a bad input costs.

    Raises:
        InvalidInput: the tensors are not those of the protocol, an option has a value that there is not, or bad inputs
            are to be null in a tensor of numbers.
        IEIError: see EmbeddingService.embed.
    """
    names = _wanted(call, default)
    if on_error == "null" and (numbers := names - _WITH_NULL):
        raise InvalidInput(
            f"on_error can't be null here: the tensor {', '.join(numbers)} has no null for the vector of a bad input; "
            f"request only the output {', '.join(_WITH_NULL)}, which is JSON"
        )
    field, inputs = _inputs(call)
    pooling = _option(call, "pooling_strategy", _POOLINGS) or "default"
    truncate, direction = _option(call, "truncate", _TRUNCATION) or (None, "right")
    options = Options(
        model=model,
        outputs=(pooling,),
        normalize=_option(call, "normalize", _FLAGS),
        truncate=truncate,
        truncation_direction=direction,
        on_error=on_error,
    )
    embeddings = await service.embed(inputs, options, field=field)
    return Inferred(embeddings, {name: await _OUTPUTS[name](embeddings, model) for name in names})


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
_OPTIONS = ("pooling_strategy", "normalize", "truncate", "include_raw")


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
_TRUNCATION: Mapping[str, tuple[bool, Literal["left", "right"]]] = {
    "true": (True, "right"),
    "false": (False, "right"),
    "none": (False, "right"),
    "start": (True, "left"),
    "end": (True, "right"),
}
"""Whether texts that are too long are truncated, and at which end."""


def _wanted(call: Call, default: str) -> Set[str]:
    """Names of the requested outputs, each once."""
    if unknown := call.outputs.keys() - _OUTPUTS.keys():
        raise InvalidInput(f"outputs: there is no {', '.join(sorted(unknown))[:200]}; there are {', '.join(_OUTPUTS)}")
    raw = ("raw_embeddings",) if _option(call, "include_raw", _FLAGS) else ()
    return dict.fromkeys((*(call.outputs or (default,)), *raw)).keys()


async def _as_json(embeddings: Embeddings, model: str) -> bytes:
    vectors = embeddings.vectors
    length = next((each.size for each in vectors if each is not None), 0)
    fields = {"embedding_dim": length, "embeddings": orjson.Fragment(await json_list(vectors)), "model_id": model}
    return orjson.dumps({**fields, "shape": [len(vectors), length], **errors_of(embeddings.errors.items(), as_error)})


async def _as_it_is(embeddings: Embeddings, model: str) -> Vectors:
    return np.stack([item.vector for item in embeddings.done])


_OUTPUTS: Mapping[str, Callable[[Embeddings, str], Awaitable[bytes | Vectors]]] = {
    "output": _as_json,
    "embedding": _as_it_is,
    "raw_embeddings": _as_it_is,
}
_WITH_NULL = {"output"}
"""Outputs that can say that an input has no vector."""
