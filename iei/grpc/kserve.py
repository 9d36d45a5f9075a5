"""The Open Inference Protocol (KServe V2) over gRPC, as KServe's and Triton's clients speak it.

Its tensors are those of the protocol over HTTP (iei/dialects/kserve_infer.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any

from iei import __version__
from iei.dialects.kserve_infer import VERSION, check_version, infer, metadata
from iei.dialects.kserve_message import DECODERS, Call, Element, binary_of, by_name, count_of, described
from iei.dialects.partial import word
from iei.dialects.wire import result_headers
from iei.errors import InvalidInput, MalformedBody
from iei.grpc.calls import Method, Reply
from iei.requests import OnError
from iei.service import EmbeddingService

SERVICE = "inference.GRPCInferenceService"


def methods(service: EmbeddingService) -> Mapping[str, Method]:
    """The methods of `SERVICE`. Triton's further ones are not implemented, which grpcio answers for us."""

    def named(model: str, version: str) -> str:
        if version:
            check_version(model, version)
        return service.resolve(model)

    async def server_live(request: Any) -> Reply:
        return Reply({"live": True})

    async def server_ready(request: Any) -> Reply:
        return Reply({"ready": service.ready})

    async def server_metadata(request: Any) -> Reply:
        return Reply({"name": "iei", "version": __version__})

    async def model_ready(request: Any) -> Reply:
        """A model that has never been loaded is loaded first."""
        await service.describe(named(request.name, request.version))
        return Reply({"ready": service.ready})

    async def model_metadata(request: Any) -> Reply:
        return Reply(metadata(await service.describe(named(request.name, request.version))))

    async def model_infer(request: Any) -> Reply:
        model = named(request.model_name, request.model_version)
        call = _call(request, service.max_inputs)
        inferred = await infer(service, model, call, default="embedding", on_error=_on_error(request))
        fields = {
            "model_name": model,
            "model_version": VERSION,
            "id": request.id or uuid.uuid4().hex,
            "outputs": [{"name": name, **described(content)} for name, content in inferred.outputs.items()],
            "raw_output_contents": [binary_of(content) for content in inferred.outputs.values()],
        }
        return Reply(fields, result_headers(inferred.embeddings))

    return {
        "ServerLive": Method("Empty", "ServerLiveResponse", server_live, is_guarded=False),
        "ServerReady": Method("Empty", "ServerReadyResponse", server_ready, is_guarded=False),
        "ServerMetadata": Method("Empty", "ServerMetadataResponse", server_metadata),
        "ModelReady": Method("ModelRequest", "ModelReadyResponse", model_ready),
        "ModelMetadata": Method("ModelRequest", "ModelMetadataResponse", model_metadata),
        "ModelInfer": Method("ModelInferRequest", "ModelInferResponse", model_infer),
    }


def _call(request: Any, max_elements: int) -> Call:
    """The call that a ModelInferRequest is: all of its tensors in `raw_input_contents`, or each in its `contents`."""
    raw: Sequence[bytes] = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise MalformedBody(f"raw_input_contents: has {len(raw)} tensors, but there are {len(request.inputs)} inputs")
    tensors = zip(request.inputs, raw or repeat(None), strict=False)
    inputs = by_name((tensor.name, partial(_elements, tensor, content, max_elements)) for tensor, content in tensors)
    return Call(inputs, {output.name: None for output in request.outputs})


def _on_error(request: Any) -> OnError:
    given = (entry.value.string_param for entry in request.parameters if entry.key == "on_error")
    return word(next(given, "fail"), "parameters.on_error")


def _elements(tensor: Any, raw: bytes | None, max_elements: int) -> Sequence[Element]:
    if tensor.datatype not in DECODERS:
        raise InvalidInput(f"its datatype must be one of {', '.join(DECODERS)}, not {tensor.datatype[:20]!r}")
    if len(tensor.shape) > MAX_DIMENSIONS or any(length < 0 for length in tensor.shape):
        raise InvalidInput(f"its shape must have at most {MAX_DIMENSIONS} dimensions, and none that is negative")
    count = count_of(tensor.shape, max_elements)
    if (raw is None) != tensor.HasField("contents"):
        raise InvalidInput(
            "its elements must be either in `contents` or, as those of all tensors, in raw_input_contents"
        )
    if raw is not None:
        return DECODERS[tensor.datatype](memoryview(raw), count)
    elements: Sequence[Element] = getattr(tensor.contents, _CONTENTS[tensor.datatype])
    if len(elements) != count:
        raise InvalidInput(f"{_CONTENTS[tensor.datatype]} has {len(elements)} elements, not the {count} of its shape")
    return elements


MAX_DIMENSIONS = 8
_CONTENTS = {"BYTES": "bytes_contents", "BOOL": "bool_contents"}
"""Datatype → the field of TensorContents."""
