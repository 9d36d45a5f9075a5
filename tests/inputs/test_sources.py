from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iei.errors import EmptyInput, IEIError, InvalidInput
from iei.inputs.sources import encoded_bytes, kind_of
from tests.pictures import base64_of, data_uri

LIMIT = 1000


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ("https://example.com/cat.jpg", "url"),
        ("HTTP://EXAMPLE.COM", "url"),
        ("data:image/png;base64,AAAA", "data"),
        ("DATA:image/png;base64,AAAA", "data"),
        ("iVBORw0KGgo=", "base64"),
        ("httpABCD", "base64"),
        ("https/AB", "base64"),
        ("ftp://example.com/cat.jpg", "base64"),
        ("", "base64"),
    ],
)
def test_an_items_kind_is_decided_by_its_prefix(item: str, kind: str) -> None:
    assert kind_of(item) == kind


@given(st.binary(min_size=1, max_size=LIMIT))
def test_what_was_encoded_comes_back(data: bytes) -> None:
    assert encoded_bytes(base64_of(data), LIMIT) == data
    assert encoded_bytes(data_uri(data), LIMIT) == data
    assert encoded_bytes(f"Data:IMAGE/png;name=a.png;BASE64,{base64_of(data)}", LIMIT) == data


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("AAA", "its length, 3, is not a multiple of 4"),
        ("AAAA\nAAAA", r"'\\n' at 4 is not in the alphabet"),
        ("AA AAAA=", "' ' at 2 is not in the alphabet"),
        ("AA-_", "'-' at 2 is of the URL-safe alphabet"),
        ("AA==AAAA", "'=' may stand only at its end"),
        ("A===", "'=' may stand only at its end"),
        ("====", "'=' may stand only at its end"),
        ("AAé=", "'é' at 2 is not in the alphabet"),
        ("ftp://example.com/cat.jpg", "only http:// and https:// URLs are taken"),
        ("file:///etc/passwd", "only http:// and https:// URLs are taken"),
        ("a cat", "' ' at 1 is not in the alphabet"),
    ],
)
def test_the_message_says_what_keeps_it_from_being_base64(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=f"^is not base64: {reason}"):
        encoded_bytes(text, LIMIT)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("data:image/png;base64", "without a comma"),
        ("data:image/png,AAAA", "not in base64"),
        ("data:text/html;base64,AAAA", "of text/html, but only image/"),
        ("data:;base64,AAAA", "of no media type, but only image/"),
        ("data:image/png;base64,AAA", "not a multiple of 4"),
    ],
)
def test_the_message_says_what_is_wrong_with_a_data_uri(uri: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        encoded_bytes(uri, LIMIT)


@pytest.mark.parametrize("item", ["", "data:image/png;base64,"])
def test_nothing_is_empty(item: str) -> None:
    with pytest.raises(EmptyInput, match=r"^is empty$"):
        encoded_bytes(item, LIMIT)


@pytest.mark.parametrize("size", [LIMIT - 2, LIMIT - 1, LIMIT])
def test_an_item_at_the_limit_is_taken(size: int) -> None:
    assert len(encoded_bytes(base64_of(bytes(size)), LIMIT)) == size


def test_an_item_over_the_limit_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(InvalidInput, match=r"^has 1001 bytes, over the limit of 1000 \(IEI_MAX_IMAGE_BYTES\)$"):
        encoded_bytes(base64_of(bytes(LIMIT + 1)), LIMIT)
    with pytest.raises(InvalidInput, match="IEI_MAX_IMAGE_BYTES"):
        encoded_bytes("not base64 at all! " * 1000, LIMIT)


def test_a_file_itself_is_bound_by_the_limit_too() -> None:
    assert encoded_bytes(bytes(LIMIT), LIMIT) == bytes(LIMIT)
    with pytest.raises(InvalidInput, match=r"^has 1001 bytes, over the limit of 1000 \(IEI_MAX_IMAGE_BYTES\)$"):
        encoded_bytes(bytes(LIMIT + 1), LIMIT)


@pytest.mark.parametrize("item", ["secret!" * 100, "data:" + "secret" * 500, "data:text/plain," + "secret" * 50])
def test_messages_do_not_repeat_what_was_sent(item: str) -> None:
    with pytest.raises(IEIError) as caught:
        encoded_bytes(item, 10_000)
    assert len(str(caught.value)) < 200
