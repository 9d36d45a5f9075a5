"""The protobuf messages of the services, made at run time from the tables below.

Names of messages are not on the wire, only numbers and types of fields are. The tables leave out fields that are never
read (`parameters`): a parser skips them. The descriptors are in a pool of their own, because a pool refuses a second
definition of a name, and generated modules of client packages have these names in the default pool.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from iei.errors import MalformedBody


class Field(NamedTuple):
    """A field of a message."""

    number: int
    kind: str
    """A key of `_SCALARS`, or a message of the table."""
    repeated: bool = False


_PACKAGE = "iei"
_TYPES = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _TYPES.TYPE_BOOL,
    "int32": _TYPES.TYPE_INT32,
    "int64": _TYPES.TYPE_INT64,
    "string": _TYPES.TYPE_STRING,
    "bytes": _TYPES.TYPE_BYTES,
}
_NUMBERS = ("bool", "int32", "int64")
"""Scalars that are packed: all elements of a repeated field may come as one."""

_TENSOR = {"name": Field(1, "string"), "datatype": Field(2, "string"), "shape": Field(3, "int64", repeated=True)}

_MODEL = {"model_name": Field(1, "string"), "model_version": Field(2, "string"), "id": Field(3, "string")}

_MESSAGES: Mapping[str, Mapping[str, Field]] = {
    "Empty": {},
    "ServerLiveResponse": {"live": Field(1, "bool")},
    "ServerReadyResponse": {"ready": Field(1, "bool")},
    "ServerMetadataResponse": {
        "name": Field(1, "string"),
        "version": Field(2, "string"),
        "extensions": Field(3, "string", repeated=True),
    },
    "ModelRequest": {"name": Field(1, "string"), "version": Field(2, "string")},
    "ModelReadyResponse": {"ready": Field(1, "bool")},
    "ModelMetadataResponse": {
        "name": Field(1, "string"),
        "versions": Field(2, "string", repeated=True),
        "platform": Field(3, "string"),
        "inputs": Field(4, "TensorMetadata", repeated=True),
        "outputs": Field(5, "TensorMetadata", repeated=True),
    },
    "TensorMetadata": _TENSOR,
    "ModelInferRequest": {
        **_MODEL,
        "parameters": Field(4, "ParameterEntry", repeated=True),  # a map, which is the same on the wire
        "inputs": Field(5, "InputTensor", repeated=True),
        "outputs": Field(6, "RequestedOutput", repeated=True),
        "raw_input_contents": Field(7, "bytes", repeated=True),
    },
    "ParameterEntry": {"key": Field(1, "string"), "value": Field(2, "Parameter")},
    "Parameter": {"string_param": Field(3, "string")},
    "InputTensor": {**_TENSOR, "contents": Field(5, "TensorContents")},
    "TensorContents": {
        "bool_contents": Field(1, "bool", repeated=True),
        "bytes_contents": Field(8, "bytes", repeated=True),
    },
    "RequestedOutput": {"name": Field(1, "string")},
    "ModelInferResponse": {
        **_MODEL,
        "outputs": Field(5, "OutputTensor", repeated=True),
        "raw_output_contents": Field(6, "bytes", repeated=True),
    },
    "OutputTensor": _TENSOR,
    "HealthCheckRequest": {"service": Field(1, "string")},
    "HealthCheckResponse": {"status": Field(1, "int32")},  # an enum, which is the same on the wire
}


def _classes() -> dict[str, Any]:
    """Name → class of every message of the table."""
    file = descriptor_pb2.FileDescriptorProto(name="iei.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, field in fields.items():
            label = _TYPES.LABEL_REPEATED if field.repeated else _TYPES.LABEL_OPTIONAL
            described = message.field.add(name=field_name, number=field.number, label=label)
            if field.kind in _SCALARS:
                described.type = _SCALARS[field.kind]
            else:
                described.type, described.type_name = _TYPES.TYPE_MESSAGE, f".{_PACKAGE}.{field.kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASSES = _classes()


def encode(name: str, fields: Mapping[str, Any]) -> bytes:
    """A message on the wire.

    Args:
        name: of the table.
        fields: their values; messages as mappings.
    """
    content: bytes = _CLASSES[name](**fields).SerializeToString()
    return content


def decode(name: str, content: bytes, max_elements: int) -> Any:
    """The message that `content` is.

    Args:
        name: of the table.
        content: what the client sent.
        max_elements: most fields, those of nested messages and elements of lists included. A message of 64 MiB can have
            33 million of them: parsing it takes 3 GiB and blocks the event loop for 6 s, finding that out takes 1 ms.

    Raises:
        MalformedBody: it is not such a message, or has more elements.
    """
    try:
        _check_elements(name, content, 0, len(content), max_elements)
        return _CLASSES[name].FromString(content)
    except (DecodeError, IndexError):
        raise MalformedBody("the request is not a protobuf message of this method") from None


_KINDS = {name: {field.number: field.kind for field in fields.values()} for name, fields in _MESSAGES.items()}
_VARINT, _DELIMITED = 0, 2
_FIXED = {1: 8, 5: 4}
"""Wire type → bytes of the value."""


def _check_elements(name: str, content: bytes, start: int, end: int, left: int) -> int:
    """Counts what a parser would make objects of. Returns how many more there may be.

    https://protobuf.dev/programming-guides/encoding

    Raises:
        MalformedBody: there are more than `left`, or it is no message.
        IndexError: it ends within a field.
    """
    position = start
    while position < end:
        key, position = _varint(content, position)
        kind, wire_type = _KINDS[name].get(key >> 3, ""), key & 7
        left -= 1
        if wire_type == _VARINT:
            _, position = _varint(content, position)
        elif wire_type == _DELIMITED:
            length, position = _varint(content, position)
            if kind in _MESSAGES:
                left = _check_elements(kind, content, position, position + length, left)
            elif kind in _NUMBERS:
                left -= length
            position += length
        elif wire_type in _FIXED:
            position += _FIXED[wire_type]
        else:
            raise MalformedBody(f"the request has a field of wire type {wire_type}, which proto3 does not have")
        if left < 0:
            raise MalformedBody("the request has too many tensors, shapes of too many dimensions, or too many elements")
    if position != end:
        raise IndexError
    return left


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """The number at `position`, and the position after it."""
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift == 70:
            raise MalformedBody("the request has a number of more than 64 bits")
