from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import anyio
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iei.dialects.kserve_binary import encode_bytes
from iei.dialects.kserve_message import Output, write_response
from iei.errors import InvalidField, InvalidInput, MalformedBody
from tests.dialects.reading import read_message

JSON, OCTETS = "application/json", "application/octet-stream"


def image(**fields: Any) -> dict[str, Any]:
    return {"name": "image", "shape": [2], "datatype": "BYTES", **fields}


def message(*tensors: dict[str, Any], content: bytes = b"", **fields: Any) -> tuple[bytes, str]:
    header = json.dumps({"inputs": tensors, **fields}).encode()
    return header + content, str(len(header))


@pytest.mark.parametrize("data", [["a", "b"], [["a"], ["b"]], [[["a", "b"]]]])
def test_data_in_json_may_be_nested(data: list[Any]) -> None:
    body, _ = message(image(data=data))
    assert read_message(body, JSON, None, 8).inputs == {"image": ["a", "b"]}


def test_binary_tensors_come_in_the_order_of_the_json() -> None:
    images, flag = encode_bytes([b"\xff\xd8", b"b"]), b"\x01"
    body, header = message(
        image(parameters={"binary_data_size": len(images)}),
        {"name": "pooling_strategy", "shape": [1], "datatype": "BYTES", "data": ["cls"]},
        {"name": "normalize", "shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}},
        content=images + flag,
        id="7",
        outputs=[{"name": "embedding", "parameters": {"binary_data": True}}, {"name": "output"}],
    )
    for media_type in (OCTETS, ""):
        call = read_message(body, media_type, header, 8)
        assert call.inputs == {"image": [b"\xff\xd8", b"b"], "pooling_strategy": ["cls"], "normalize": [True]}
        assert call.outputs == {"embedding": True, "output": None}
        assert call.id == "7"


@pytest.mark.parametrize(
    ("media_type", "header"), [(JSON, None), (JSON, "1234"), (JSON, "x"), ("", None), (OCTETS, None)]
)
def test_json_alone(media_type: str, header: str | None) -> None:
    """With a wrong header, without a content type, and as octets, which is what aiohttp says of any bytes."""
    body, _ = message(image(data=["a", "b"]))
    assert read_message(body, media_type, header, 8).inputs == {"image": ["a", "b"]}


@pytest.mark.parametrize(
    ("media_type", "header"), [("image/jpeg", None), (OCTETS, None), (OCTETS, "0"), ("image/png", "0"), ("", "0")]
)
def test_one_file_is_the_whole_body(media_type: str, header: str | None) -> None:
    assert read_message(b"\xff\xd8\xff", media_type, header, 8).inputs == {"image": [b"\xff\xd8\xff"]}


@pytest.mark.parametrize(
    "tensor",
    [
        image(),
        image(data=["a"]),
        image(data=["a", "b", "c"]),
        image(data=["a", 1]),
        image(data=["a", None]),
        image(data=["a", "b"], shape=[-2]),
        image(data=["a", "b"], shape=[2, 2]),
        image(data=["a"] * 9, shape=[9]),
        image(data=["a", "b"], datatype="FP32"),
        image(data=["a", "b"], datatype="BOOL"),
        image(data=["a", "b"], parameters={"binary_data_size": 0}),
        image(parameters={"binary_data_size": 0}),
        image(parameters={"binary_data_size": -1}),
        image(parameters={"binary_data_size": 10**30}),
        image(parameters={"shared_memory_region": "input"}),
    ],
    ids=json.dumps,
)
def test_what_is_wrong_with_a_tensor(tensor: dict[str, Any]) -> None:
    body, header = message(tensor)
    with pytest.raises((InvalidInput, InvalidField, MalformedBody)):
        read_message(body, OCTETS, header, 8)


def test_two_tensors_of_one_name_are_refused() -> None:
    body, _ = message(image(data=["a", "b"]), image(data=["a", "b"]))
    with pytest.raises(InvalidInput, match="two tensors"):
        read_message(body, JSON, None, 8)


def test_a_tensor_of_a_billion_nothings_is_refused_at_once() -> None:
    body, header = message(image(shape=[2**30], parameters={"binary_data_size": 4}), content=bytes(4))
    with pytest.raises(InvalidInput, match="limit"):
        read_message(body, OCTETS, header, 1024)


@given(
    st.binary(max_size=200),
    st.sampled_from([JSON, OCTETS, "image/png", ""]),
    st.one_of(st.none(), st.text(max_size=6), st.integers(0, 250).map(str)),
)
def test_any_body_is_a_call_or_refused(body: bytes, media_type: str, header: str | None) -> None:
    with suppress(InvalidInput, InvalidField, MalformedBody):
        call = read_message(body, media_type, header, 8)
        assert all(len(elements) <= 8 for elements in call.inputs.values())


WHOLE, HEADER = message(
    image(parameters={"binary_data_size": 11}), content=encode_bytes([b"ab", b"c"]), outputs=[{"name": "embedding"}]
)


@given(st.data())
def test_a_damaged_message_is_a_call_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidInput, InvalidField, MalformedBody):
        call = read_message(bytes(damaged), OCTETS, HEADER, 8)
        assert all(len(elements) <= 8 for elements in call.inputs.values())


VECTORS = np.array([[1, 2, 3], [4, 5, 6.5]], np.float32)


def test_outputs_in_json_are_flat() -> None:
    outputs = [Output("output", b'{"a":"b"}', binary=False), Output("embedding", VECTORS, binary=False)]
    content, header_length = anyio.run(write_response, {"id": "1"}, outputs)
    assert header_length is None
    assert orjson.loads(content) == {
        "id": "1",
        "outputs": [
            {"name": "output", "datatype": "BYTES", "shape": [1], "data": ['{"a":"b"}']},
            {"name": "embedding", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6.5]},
        ],
    }


def test_outputs_in_binary_follow_the_json() -> None:
    outputs = [
        Output("output", b"{}", binary=True),
        Output("embedding", VECTORS, binary=False),
        Output("raw_embeddings", VECTORS, binary=True),
    ]
    content, header_length = anyio.run(write_response, {}, outputs)
    header = orjson.loads(content[:header_length])
    assert [output.get("parameters") for output in header["outputs"]] == [
        {"binary_data_size": 6},
        None,
        {"binary_data_size": 24},
    ]
    assert content[header_length:] == b"\x02\0\0\0{}" + VECTORS.tobytes()
