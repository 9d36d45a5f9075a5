"""Items of requests: base64 and data URIs, whole and damaged. The bytes inside, or a message that stays short."""

from __future__ import annotations

import base64
import binascii

from hypothesis import example, given
from hypothesis import strategies as st

from iei.errors import EmptyInput, InvalidInput
from iei.inputs.sources import encoded_bytes, kind_of
from tests.fuzz.effort import examples
from tests.fuzz.refusals import or_refused
from tests.pictures import base64_of, data_uri

LIMIT = 200
ALPHABET = "ABCXYZabcxyz0189+/="


@st.composite
def items(draw: st.DrawFn) -> str:
    """Texts that are, or nearly are, what an item may be."""
    data = draw(st.binary(max_size=LIMIT + 20))
    text = draw(
        st.sampled_from((base64_of(data), data_uri(data), data_uri(data, "image/svg+xml;charset=utf-8")))
        | st.text(ALPHABET, max_size=60)
        | st.text(max_size=60)
        | st.text(ALPHABET + ";,:/", max_size=60).map("data:image/".__add__)
    )
    place = draw(st.integers(0, len(text)))
    return draw(
        st.just(text)
        | st.sampled_from(("=", ",", ";", " ", "\n", "\0", "é", "-", "１", "")).map(
            lambda fault: text[:place] + fault + text[place + 1 :]
        )
    )


@examples(400)
@given(items())
@example("A" * 400)
@example("data:" + "," * 2000)
def test_any_item_is_bytes_or_refused(item: str) -> None:
    if kind_of(item) == "url":
        return
    with or_refused(EmptyInput, InvalidInput):
        data = encoded_bytes(item, LIMIT)
        assert 0 < len(data) <= LIMIT
        # Python's own strict decoder makes the same of it, and there is one text for these bytes alone.
        text = item.partition(",")[2] if kind_of(item) == "data" else item
        assert data == binascii.a2b_base64(text, strict_mode=True)
        assert base64.b64encode(data)[:-4].decode() == text[:-4]
