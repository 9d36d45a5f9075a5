"""Forms with files, whole and damaged, cut anywhere on their way: their parts, or one kind of error."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from iei.dialects.multipart import MAX_FIELDS, File, Form, form_of
from iei.errors import MalformedBody
from tests.fuzz.damage import damaged
from tests.fuzz.effort import examples
from tests.fuzz.refusals import or_refused

# Starlette does not close the file of a part that never ends. It is in memory, which is freed with it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MAX_FILES = 3
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nK\xc3\xa4se\r\n'
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    b"\xff\xd8\r\n"
    b"--x\r\nContent-Disposition: form-data; name=more\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n"
    b'--x\r\ncontent-disposition: FORM-DATA; name=a; filename="\\"\\""\r\n\r\n\r\n--x--\r\n'
)
PIECES = tuple(
    piece.encode("latin-1")
    for piece in (
        "--x",
        "--x--",
        "\r\n",
        "\n",
        "\r",
        "\r\n\r\n",
        "Content-Disposition: form-data",
        '; name="a"',
        '; filename="b"',
        "; name=",
        '; name="\\',
        "; name*=utf-8''t%C3%A4xt",
        "; filename*=UTF-8''%ff",
        "; filename*0=a",
        "Content-Type: text/plain; charset=utf-16\r\n",
        "Content-Type: image/png; charset=nothing\r\n",
        ":",
        "\0",
        "ä",
    )
)
BODIES = st.one_of(
    damaged(FORM, (FORM, *PIECES)),
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=24).map(b"".join),
    st.integers(1, 2 * MAX_FIELDS).map(lambda count: FORM[: FORM.index(b"--x", 3)] * count + b"--x--"),
)
TYPES = st.one_of(
    st.just("multipart/form-data; boundary=x"),
    st.just("multipart/form-data; boundary=x"),
    st.sampled_from(
        (
            "multipart/form-data",
            "multipart/form-data; boundary=",
            'multipart/form-data; boundary="x"',
            "multipart/form-data; boundary=x; charset=utf-16",
            "multipart/form-data; boundary=x; charset=nothing",
            "multipart/form-data; boundary=" + "x" * 300,
            "multipart/form-data; boundary=ä",
            "multipart/mixed; boundary=x",
        )
    ),
    st.text(st.characters(max_codepoint=255), max_size=20).map("multipart/form-data; boundary=x; ".__add__),
)


def read(body: bytes, cuts: list[int], content_type: str) -> Form:
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    chunks = [body[start:stop] for start, stop in pairwise(places)]
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    left = iter([*messages, {"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        return next(left)

    scope = {"type": "http", "headers": [(b"content-type", content_type.encode("latin-1"))]}
    return asyncio.run(form_of(Request(scope, receive), max_files=MAX_FILES))


@examples(300)
@given(BODIES, st.lists(st.integers(0, 1000), max_size=4), TYPES)
def test_any_body_is_a_form_or_refused(body: bytes, cuts: list[int], content_type: str) -> None:
    with or_refused(MalformedBody):
        form = read(body, cuts, content_type)
        assert len(form.fields) <= MAX_FIELDS
        assert len(form.files) <= MAX_FILES
        assert sum(len(file.data) for file in form.files) <= len(body)


@examples(100)
@given(st.lists(st.integers(0, len(FORM)), max_size=8))
def test_a_sound_form_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    form = read(FORM, cuts, "multipart/form-data; boundary=x")
    assert form.fields["text"] == "Käse"
    assert form.files[0] == File("image", "a.jpg", b"\xff\xd8")
