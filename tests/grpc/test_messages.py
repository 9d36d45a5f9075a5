"""Messages against the generated ones of a client package, and hostile ones."""

from __future__ import annotations

import time
from typing import Any

import pytest

from iei.errors import MalformedBody

REASON = "needs the extra grpc: uv sync --extra grpc (the group clients has it, too)"
pytest.importorskip("grpc", reason=REASON)
from iei.grpc.messages import decode, encode  # noqa: E402 - after the check that it can be imported

MIB = 2**20


@pytest.fixture(scope="module")
def generated() -> Any:
    """Triton's generated messages, which have the same names as the specification's."""
    return pytest.importorskip(
        "tritonclient.grpc.service_pb2", reason="needs the clients group: uv sync --group clients"
    )


def test_a_request_of_a_client_is_read(generated: Any) -> None:
    tensor = generated.ModelInferRequest.InferInputTensor(
        name="image", datatype="BYTES", shape=[2, 1], contents={"bytes_contents": [b"a", b""], "int_contents": [7]}
    )
    tensor.parameters["binary_data_size"].int64_param = 3
    request = generated.ModelInferRequest(
        model_name="clip",
        model_version="1",
        id="7",
        inputs=[tensor],
        outputs=[{"name": "embedding"}],
        raw_input_contents=[b"\1\0\0\0x"],
    )
    request.parameters["priority"].uint64_param = 1
    read = decode("ModelInferRequest", request.SerializeToString(), 1000)
    assert (read.model_name, read.model_version, read.id) == ("clip", "1", "7")
    (tensor,) = read.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("image", "BYTES", [2, 1])
    assert list(tensor.contents.bytes_contents) == [b"a", b""]
    assert [output.name for output in read.outputs] == ["embedding"]
    assert list(read.raw_input_contents) == [b"\1\0\0\0x"]


@pytest.mark.parametrize(
    ("ours", "theirs", "fields"),
    [
        ("ServerLiveResponse", "ServerLiveResponse", {"live": True}),
        ("ServerReadyResponse", "ServerReadyResponse", {"ready": True}),
        ("ModelReadyResponse", "ModelReadyResponse", {"ready": True}),
        ("ServerMetadataResponse", "ServerMetadataResponse", {"name": "a", "version": "b", "extensions": ["c"]}),
        (
            "ModelMetadataResponse",
            "ModelMetadataResponse",
            {
                "name": "a",
                "versions": ["1"],
                "platform": "b",
                "inputs": [{"name": "c", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [{"name": "d", "datatype": "FP32", "shape": [-1, 4]}],
            },
        ),
        (
            "ModelInferResponse",
            "ModelInferResponse",
            {
                "model_name": "a",
                "model_version": "1",
                "id": "b",
                "outputs": [{"name": "c", "datatype": "FP32", "shape": [1, 4]}],
                "raw_output_contents": [b"\0" * 16],
            },
        ),
        ("ModelRequest", "ModelReadyRequest", {"name": "a", "version": "b"}),
        ("ModelRequest", "ModelMetadataRequest", {"name": "a", "version": "b"}),
    ],
)
def test_messages_are_those_of_the_specification(
    ours: str, theirs: str, fields: dict[str, Any], generated: Any
) -> None:
    message = getattr(generated, theirs)(**fields)
    assert getattr(generated, theirs).FromString(encode(ours, fields)) == message
    assert encode(ours, fields) == message.SerializeToString(deterministic=True)


def delimited(number: int, content: bytes) -> bytes:
    length, size = b"", len(content)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


@pytest.mark.parametrize(
    "content",
    [
        delimited(5, b"") * (16 * MIB),  # empty tensors
        delimited(7, b"") * (16 * MIB),  # empty raw contents
        delimited(5, delimited(5, delimited(8, b"") * (16 * MIB))),  # empty elements of a tensor
        delimited(5, delimited(3, b"\1" * (32 * MIB))),  # a packed shape
        delimited(5, b"\x18\1" * (16 * MIB)),  # a shape that is not packed
        delimited(9, b"") * (16 * MIB),  # fields that the specification does not have
    ],
    ids=["tensors", "raw", "elements", "packed", "unpacked", "unknown"],
)
def test_millions_of_fields_are_refused_before_they_are_parsed(content: bytes) -> None:
    started = time.process_time()
    with pytest.raises(MalformedBody, match="too many"):
        decode("ModelInferRequest", content, 2000)
    assert time.process_time() - started < 0.1  # parsing takes 1 to 3 s


@pytest.mark.parametrize(
    "content",
    [
        b"\x0a",  # ends before the length
        b"\x0a\x05abc",  # in the middle of a string
        b"\x2a\x05\x0a\x09image",  # a tensor whose name is longer than it
        b"\x08",  # before a number
        b"\x08" + b"\xff" * 20,  # an endless number
        b"\x0b\x0c",  # a group
        b"\x0f",  # no wire type
        b"\x00\x00",  # field 0
        b"\x0a\x01\xff",  # a string that is not UTF-8
        b'{"inputs": []}',
        b"\x0d\x01",  # a fixed number that ends early
    ],
)
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode("ModelInferRequest", content, 2000)


def test_an_unknown_field_of_each_wire_type_is_skipped() -> None:
    unknown = b"\xf8\x01\x96\x01" + b"\xf9\x01" + bytes(8) + b"\xfd\x01" + bytes(4) + b"\xfa\x01\x02ab"
    assert decode("ModelRequest", unknown + b"\x0a\x04clip" + unknown, 2000).name == "clip"
