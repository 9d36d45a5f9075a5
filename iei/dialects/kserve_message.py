"""Messages of the Open Inference Protocol: reads tensors from request bodies and writes response bodies.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from iei.dialects.fields import ListOf, OrNull
from iei.dialects.json_size import JsonLimits
from iei.dialects.kserve_binary import (
    HEADER_LENGTH,
    decode_bools,
    decode_bytes,
    encode_bytes,
    encode_fp32,
    split_message,
    split_tensors,
)
from iei.dialects.partial import OnErrorField
from iei.dialects.wire import is_json, json_list, validated
from iei.errors import InvalidInput, MalformedBody
from iei.requests import OnError, Vectors

Element = str | bytes | bool
"""An element of an input tensor: text from JSON, bytes from a binary tensor, or a boolean from either."""


class TensorParameters(BaseModel):
    """Parameters of a tensor."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    binary_data_size: int | None = Field(default=None, ge=0, strict=True)
    """Size of this tensor after the JSON, in bytes."""


class InputTensor(BaseModel):
    """A tensor of a request: the inputs, or an option."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """`image` or `text`, or one of the options `pooling_strategy`, `normalize` and `include_raw`."""
    shape: Annotated[ListOf[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=8)]
    datatype: Literal["BYTES", "BOOL"]
    """BYTES; `normalize` and `include_raw` may be BOOL."""
    parameters: Annotated[TensorParameters, OrNull] = TensorParameters()
    data: list[Any] | None = None
    """The elements, flat or nested. Missing if they follow the JSON in binary."""


class OutputParameters(BaseModel):
    """Parameters of a requested output."""

    binary_data: bool | None = None


class RequestedOutput(BaseModel):
    """An output that the response should have."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """`output`, `embedding` or `raw_embeddings`."""
    parameters: Annotated[OutputParameters, OrNull] = OutputParameters()


class RequestParameters(BaseModel):
    """Parameters of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    binary_data_output: Annotated[bool, OrNull] = False
    """Whether outputs without a `binary_data` parameter are sent in binary."""
    on_error: OnErrorField = None
    """What a bad input costs: `fail`, the whole request (the default); `null`, its own vector only, in `output`."""


class InferRequest(BaseModel):
    """The JSON of an inference request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str | None = None
    """Returned with the response."""
    inputs: ListOf[InputTensor]
    outputs: Annotated[ListOf[RequestedOutput], OrNull] = []
    """Default: `output`, and also `raw_embeddings` if `include_raw` is true."""
    parameters: Annotated[RequestParameters, OrNull] = RequestParameters()


class OutputTensor(BaseModel):
    """A tensor of a response."""

    name: str
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    data: list[str] | list[float] | None = None
    parameters: TensorParameters | None = None


class InferResponse(BaseModel):
    """The JSON of an inference response."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


@dataclass(frozen=True, slots=True)
class Call:
    """An inference request, independent of its wire format."""

    inputs: Mapping[str, Sequence[Element]]
    outputs: Mapping[str, bool | None] = field(default_factory=dict)
    """Names of the requested outputs → whether to send them in binary. None: as `binary_output` says."""
    binary_output: bool = False
    id: str | None = None
    on_error: OnError | None = None
    """What a bad input costs, if the request says so."""


@dataclass(frozen=True, slots=True)
class Output:
    """An output to write to a response."""

    name: str
    content: bytes | Vectors
    """The element of a BYTES tensor of shape [1], or an FP32 tensor."""
    binary: bool


DECODERS: Mapping[str, Callable[[memoryview, int], Sequence[Element]]] = {"BYTES": decode_bytes, "BOOL": decode_bools}
"""Datatype → decoder of binary elements, of which there must be so many."""


def by_name(tensors: Iterable[tuple[str, Callable[[], Sequence[Element]]]]) -> dict[str, Sequence[Element]]:
    """Reads the input tensors of a request.

    Args:
        tensors: the name of each, and what reads its elements.

    Raises:
        InvalidInput: two have the same name, or one can't be read; the message begins with its name.
    """
    inputs: dict[str, Sequence[Element]] = {}
    for name, read in tensors:
        if name in inputs:
            raise InvalidInput(f"inputs: there are two tensors {name[:40]!r}")
        try:
            inputs[name] = read()
        except (InvalidInput, MalformedBody) as error:
            raise InvalidInput(f"{name[:40]}: {error}") from None
    return inputs


def count_of(shape: Iterable[int], max_elements: int) -> int:
    """The number of elements of a tensor. Raises InvalidInput if there are more than `max_elements`."""
    count = math.prod(shape)
    if count > max_elements:
        raise InvalidInput(f"has {count} elements, over the limit of {max_elements} (IEI_MAX_INPUTS)")
    return count


async def read_call(
    body: bytes, content_type: str, header_length: str | None, max_elements: int, limits: JsonLimits
) -> Call:
    """Reads a request body: JSON, JSON followed by binary tensors, or one image file.

    With a JSON content type, Inference-Header-Content-Length is ignored: one client always sends a constant.

    Args:
        body: the whole body.
        content_type: media type, in lower case and without parameters.
        header_length: the header Inference-Header-Content-Length, if there is one. 0 means that the body is an image.
        max_elements: most elements in one tensor.
        limits: on the JSON.

    Raises:
        MalformedBody: the body is not valid JSON, or its lengths don't fit.
        InvalidField: a field is missing or invalid, or the JSON has too many values.
        InvalidInput: a tensor is invalid.
    """
    if is_json(content_type) or (header_length is None and not _is_file(body, content_type)):
        return await _read_message(body, len(body), max_elements, limits)
    if header_length is not None and not _NUMBER.fullmatch(header_length):
        raise MalformedBody(f"{HEADER_LENGTH} must be a number of bytes, not {header_length[:40]!r}")
    length = int(header_length or 0)
    return await _read_message(body, length, max_elements, limits) if length else Call({"image": [body]})


_NUMBER = re.compile(r"[0-9]{1,12}")


def _is_file(body: bytes, content_type: str) -> bool:
    """Whether the body is an image file. Some clients send JSON as octet-stream, but no image begins with a brace."""
    return content_type.startswith("image/") or (
        content_type == "application/octet-stream" and not body[:64].lstrip().startswith(b"{")
    )


async def _read_message(body: bytes, header_length: int, max_elements: int, limits: JsonLimits) -> Call:
    header, content = split_message(body, header_length)
    request = await validated(header, InferRequest, limits)
    parts = split_tensors(content, [tensor.parameters.binary_data_size or 0 for tensor in request.inputs])
    pairs = zip(request.inputs, parts, strict=True)
    inputs = by_name((tensor.name, partial(_elements, tensor, part, max_elements)) for tensor, part in pairs)
    outputs = {output.name: output.parameters.binary_data for output in request.outputs}
    return Call(inputs, outputs, request.parameters.binary_data_output, request.id, request.parameters.on_error)


def _elements(tensor: InputTensor, part: memoryview, max_elements: int) -> Sequence[Element]:
    count = count_of(tensor.shape, max_elements)
    if (tensor.data is None) == (tensor.parameters.binary_data_size is None):
        raise InvalidInput("its elements must be either in `data` or after the JSON, with `binary_data_size`")
    if tensor.data is None:
        return DECODERS[tensor.datatype](part, count)
    elements = list(_flat(tensor.data))
    if len(elements) != count or not all(isinstance(element, _JSON_TYPES[tensor.datatype]) for element in elements):
        raise InvalidInput(f"`data` is not the {count} {tensor.datatype} elements of its shape")
    return elements


_JSON_TYPES = {"BYTES": str, "BOOL": bool}


def _flat(data: list[Any]) -> Iterator[Any]:
    for element in data:
        if isinstance(element, list):
            yield from _flat(element)
        else:
            yield element


async def write_response(fields: Mapping[str, str], outputs: Sequence[Output]) -> tuple[bytes, int | None]:
    """Writes a response body.

    Args:
        fields: top-level fields of the JSON other than `outputs`.
        outputs: in the order in which they are sent.

    Returns:
        The body, and the length of its JSON part in bytes; None if there are no binary tensors after it.
    """
    tensors = []
    contents = []
    for output in outputs:
        tensor: dict[str, object] = {"name": output.name, **described(output.content)}
        if output.binary:
            contents.append(binary_of(output.content))
            tensor["parameters"] = {"binary_data_size": len(contents[-1])}
        else:
            tensor["data"] = await _data(output.content)
        tensors.append(tensor)
    header = orjson.dumps({**fields, "outputs": tensors})
    return b"".join((header, *contents)), len(header) if contents else None


def described(content: bytes | Vectors) -> dict[str, object]:
    """The datatype and shape of an output."""
    if isinstance(content, bytes):
        return {"datatype": "BYTES", "shape": [1]}
    return {"datatype": "FP32", "shape": content.shape}


def binary_of(content: bytes | Vectors) -> bytes:
    """An output as a binary tensor."""
    return encode_bytes([content]) if isinstance(content, bytes) else encode_fp32(content)


async def _data(content: bytes | Vectors) -> object:
    if isinstance(content, bytes):
        return [content.decode()]
    rows = await json_list(content)
    return orjson.Fragment(rows.replace(b"],[", b",")[1:-1])  # flat, as other servers of this protocol send it
