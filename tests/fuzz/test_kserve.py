"""Messages of KServe's protocol: JSON with tensors after it, and protobuf. A call, or an error with its reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iei.dialects.kserve_binary import decode_bools, decode_bytes, encode_bytes
from iei.errors import IEIError, MalformedBody
from tests.dialects.reading import read_message
from tests.fuzz.bodies import changed_json
from tests.fuzz.damage import damaged
from tests.fuzz.effort import examples
from tests.fuzz.refusals import or_refused

MAX_ELEMENTS = 8
REASON = "needs the extra grpc: uv sync --extra grpc (the group clients has it, too)"

PICTURES = encode_bytes([b"\xff\xd8\xff", b"aGVsbG8="])
HEADER: dict[str, Any] = {
    "id": "7",
    "inputs": [
        {"name": "image", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(PICTURES)}},
        {"name": "normalize", "shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}},
        {"name": "pooling_strategy", "shape": [1], "datatype": "BYTES", "data": ["cls"]},
    ],
    "outputs": [{"name": "embedding", "parameters": {"binary_data": True}}],
    "parameters": {"binary_data_output": False},
}
CONTENT = PICTURES + b"\1"


@examples(300)
@given(st.binary(max_size=64) | damaged(PICTURES), st.integers(0, 10))
def test_any_bytes_are_the_elements_of_a_tensor_or_refused(content: bytes, count: int) -> None:
    with or_refused(MalformedBody):
        elements = decode_bytes(memoryview(content), count)
        assert (len(elements), encode_bytes(elements)) == (count, content)
    with or_refused(MalformedBody):
        assert bytes(decode_bools(memoryview(content), count)) == content


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, str]:
    """A body, and the length of its header, each of which may be wrong."""
    header = json.dumps(draw(st.just(HEADER) | changed_json(HEADER))).encode()
    body = header + draw(st.just(CONTENT) | damaged(CONTENT))
    length = draw(st.just(str(len(header))) | st.integers(-1, len(body) + 2).map(str) | st.text(max_size=14))
    return draw(st.just(body) | damaged(body)), length


@examples(300)
@given(messages(), st.sampled_from(("application/octet-stream", "application/json", "image/png", "")))
def test_any_message_is_a_call_or_refused(message: tuple[bytes, str], media_type: str) -> None:
    body, length = message
    for header_length in (length, None):
        with or_refused(IEIError, longest=2000):
            call = read_message(body, media_type, header_length, MAX_ELEMENTS)
            assert all(len(elements) <= MAX_ELEMENTS for elements in call.inputs.values())


def protobuf() -> st.SearchStrategy[bytes]:
    """Requests of gRPC clients, sound and damaged."""
    from iei.grpc.messages import encode

    tensor = {"name": "image", "datatype": "BYTES", "shape": [2, 1]}
    sound = tuple(
        encode("ModelInferRequest", {"model_name": "clip", "id": "7", "outputs": [{"name": "embedding"}], **fields})
        for fields in (
            {"inputs": [{**tensor, "contents": {"bytes_contents": [b"a", b"b"], "bool_contents": [True] * 20}}]},
            {"inputs": [tensor, {"name": "normalize", "datatype": "BOOL"}], "raw_input_contents": [PICTURES, b"\1"]},
        )
    )
    return st.sampled_from(sound).flatmap(lambda message: st.just(message) | damaged(message, sound))


def objects_in(message: Any) -> int:
    """What a parser has made of a message: its fields, and the elements of its lists."""
    count = 0
    for _, value in message.ListFields():
        for each in value if hasattr(value, "append") or hasattr(value, "add") else (value,):
            count += 1 + (objects_in(each) if hasattr(each, "ListFields") else 0)
    return count


@examples(300)
@given(st.data(), st.sampled_from((0, 1, 10, 1000)))
def test_any_protobuf_is_a_call_or_refused(data: st.DataObject, max_elements: int) -> None:
    pytest.importorskip("google.protobuf", reason=REASON)
    pytest.importorskip("grpc", reason=REASON)
    from iei.grpc.kserve import _call
    from iei.grpc.messages import decode

    content = data.draw(protobuf() | st.binary(max_size=100))
    with or_refused(IEIError, longest=2000):
        request = decode("ModelInferRequest", content, max_elements)
        assert objects_in(request) <= max_elements
        assert all(len(elements) <= MAX_ELEMENTS for elements in _call(request, MAX_ELEMENTS).inputs.values())
