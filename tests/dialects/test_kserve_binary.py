from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from iei.dialects.kserve_binary import (
    decode_bools,
    decode_bytes,
    encode_bytes,
    encode_fp32,
    split_message,
    split_tensors,
)
from iei.errors import MalformedBody

elements = st.lists(st.binary(max_size=40), max_size=8)


@given(elements)
def test_bytes_survive_both_ways(elements: list[bytes]) -> None:
    assert decode_bytes(memoryview(encode_bytes(elements)), len(elements)) == elements


@given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda element: element[-1]), min_size=1, max_size=8))
def test_bytes_are_those_of_tritonclient(elements: list[bytes]) -> None:
    """(numpy drops zero bytes at the end of an element: those are not its to hold.)"""
    theirs = serialize_byte_tensor(np.array(elements, object)).item()
    assert encode_bytes(elements) == theirs
    assert decode_bytes(memoryview(theirs), len(elements)) == elements
    assert list(deserialize_bytes_tensor(encode_bytes(elements))) == elements


@given(elements.filter(bool), st.data())
def test_a_cut_or_lengthened_tensor_is_refused(elements: list[bytes], data: st.DataObject) -> None:
    whole = encode_bytes(elements)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    longer = whole + data.draw(st.binary(min_size=1, max_size=8))
    for content in (cut, longer):
        with pytest.raises(MalformedBody):
            decode_bytes(memoryview(content), len(elements))


@given(st.lists(st.booleans()))
def test_bools(values: list[bool]) -> None:
    assert decode_bools(memoryview(bytes(values)), len(values)) == values
    with pytest.raises(MalformedBody):
        decode_bools(memoryview(bytes(values)), len(values) + 1)
    with pytest.raises(MalformedBody):
        decode_bools(memoryview(bytes([*values, 2])), len(values) + 1)


def test_floats_lie_row_by_row() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.frombuffer(encode_fp32(values), "<f4").tolist() == [0, 1, 2, 3, 4, 5]
    assert encode_fp32(values.T) == encode_fp32(np.ascontiguousarray(values.T))


@given(st.binary(max_size=64), st.integers(0, 100))
def test_a_message_is_cut_at_its_header_or_refused(body: bytes, header_length: int) -> None:
    if header_length > len(body):
        with pytest.raises(MalformedBody):
            split_message(body, header_length)
    else:
        header, content = split_message(body, header_length)
        assert (len(header), header + bytes(content)) == (header_length, body)


@given(st.lists(st.binary(max_size=20)), st.integers(-5, 5))
def test_tensors_fill_the_content_exactly(parts: list[bytes], excess: int) -> None:
    content = memoryview(b"".join(parts))
    sizes = [len(part) for part in parts]
    assert [bytes(part) for part in split_tensors(content, sizes)] == parts
    if excess > 0:
        with pytest.raises(MalformedBody):
            split_tensors(content, [*sizes, excess])
    if sizes and 0 < -excess <= sizes[-1]:
        with pytest.raises(MalformedBody):
            split_tensors(content, [*sizes[:-1], sizes[-1] + excess])
