"""What a JSON document would become is known before it is parsed, at every route that takes one."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.testclient import TestClient

from iei.dialects.json_size import PARTS_OF_A_REQUEST, PIECE_BYTES, ExactCount, JsonLimits, UpperBound
from iei.dialects.kserve_binary import HEADER_LENGTH
from iei.engine.inprocess import InProcessEngine
from iei.errors import InvalidField
from tests.apps import app_around
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime

MOST_PARTS, MOST_IDS = PARTS_OF_A_REQUEST, 5000
SMALL = JsonLimits(max_inputs=0, max_ids=MOST_IDS)
LONG = "a" * 2 * PIECE_BYTES


def counted(value: Any) -> tuple[int, int]:
    """Parts of a value, and the values in it."""
    if isinstance(value, dict):
        inner = [counted(item) for item in value.values()]
        return 1 + len(value) + sum(parts for parts, _ in inner), sum(1 + values for _, values in inner)
    if isinstance(value, list):
        inner = [counted(item) for item in value]
        return 1 + sum(parts for parts, _ in inner), sum(1 + values for _, values in inner)
    return int(isinstance(value, str)), 0


def is_allowed(document: bytes, limits: JsonLimits) -> bool:
    try:
        asyncio.run(limits.check(document))
    except InvalidField:
        return False
    return True


@pytest.mark.parametrize(
    "allowed",
    [
        ["a"] * (MOST_PARTS - 1),
        [[]] * (MOST_PARTS - 1),
        [{}] * (MOST_PARTS - 1),
        {str(at): 1 for at in range(MOST_PARTS - 1)},
        [*[["a"]] * (MOST_PARTS // 2 - 1), "a"],
        [7] * (MOST_PARTS + MOST_IDS - 1),
        [LONG, *['",[{' * 1000] * 9, r"\" \\" * PIECE_BYTES, "\\", *["a"] * (MOST_PARTS - 13)],
    ],
    ids=["strings", "lists", "objects", "fields", "nested", "numbers", "punctuation in strings"],
)
def test_as_much_as_is_allowed_and_one_more(allowed: Any) -> None:
    spaces = " " * MOST_PARTS  # so that it is not allowed for its few bytes
    assert is_allowed((spaces + json.dumps(allowed)).encode(), SMALL)
    extra = 2 * [7] if 7 in allowed else ["a"]
    more = {**allowed, "b": 1} if isinstance(allowed, dict) else [*allowed, *extra]
    assert not is_allowed((spaces + json.dumps(more)).encode(), SMALL)


JSON = st.recursive(
    st.none() | st.integers(0, 99) | st.text(st.sampled_from('a",[(\\\u00fc'), max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=5),
    max_leaves=30,
)


@pytest.mark.parametrize(
    ("most", "extra"),
    [
        (["1" * 4000] * 20, "1"),
        (["9" * 80_000], "9"),
    ],
    ids=["many numbers", "one number"],
)
def test_numbers_may_have_so_many_digits_in_all(most: list[str], extra: str) -> None:
    text = json.dumps(LONG[:100] + "7" * 100_000)  # digits of strings don't count
    assert is_allowed(f"[{text}, {','.join(most)}]".encode(), SMALL)
    assert not is_allowed(f"[{text}, {','.join([*most, extra])}]".encode(), SMALL)


@pytest.mark.parametrize("wide", [r"\u00fc", "\u00fc", "\U0001f600"])
@pytest.mark.parametrize("before", [0, 1, PIECE_BYTES - 10, PIECE_BYTES + 7])
def test_strings_beyond_ascii_may_have_so_many_bytes_in_all(wide: str, before: int) -> None:
    """Wherever the character is in them; others don't count."""
    rest = 16 * MOST_IDS - len(wide.encode()) - 1  # the quote that begins it counts
    strings = [LONG, "b" * before, "a" * rest + wide, LONG]
    document = "[" + ",".join(f'"{text}"' for text in strings) + "]"
    assert is_allowed(document.encode(), SMALL)
    assert not is_allowed(document.replace(wide, "aa" + wide).encode(), SMALL)
    assert not is_allowed(document.replace(wide, wide + "aa").encode(), SMALL)
    assert is_allowed(document.replace(wide, "aa").encode(), SMALL)


@given(JSON, st.integers(1, 40), st.booleans())
def test_it_is_counted_exactly_however_it_is_cut(value: Any, piece_bytes: int, ascii_only: bool) -> None:
    document = json.dumps(value, ensure_ascii=ascii_only).encode()
    exact, bound = ExactCount(), UpperBound()
    for start in range(0, len(document), piece_bytes):
        for count in (exact, bound):
            count.add(document[start : start + piece_bytes])
    parts, values = counted(value)
    empty = document.count(b"[]") + document.count(b"{}")  # each counts as if it had a value
    assert exact.counts[:2] == (parts, values + empty)
    assert exact.counts.within(bound.counts)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = app_around(InProcessEngine(KnownRuntime()), max_inputs=1, max_text_length=5000)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reaches pydantic's parser is a bug."""

    def parse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("was parsed")

    monkeypatch.setattr(BaseModel, "model_validate_json", parse)


MANY: Mapping[str, tuple[bytes, str]] = {
    "strings": (b'["",' + b'"",' * 2000 + b'""]', "IEI_MAX_INPUTS"),
    "lists": (b"[[1]" + b",[1]" * 2000 + b"]", "IEI_MAX_INPUTS"),
    "numbers": (b"[0" + b",0" * 9000 + b"]", "IEI_MAX_TEXT_LENGTH"),
    "no JSON": (b"[" * 9000, "IEI_MAX_INPUTS"),
}


def posts(app: Any) -> set[str]:
    """Paths of all routes for POST, of the model that is served."""
    paths = {path for path, operations in app.openapi()["paths"].items() if "post" in operations}
    paths |= {route.path for route in app.routes if isinstance(route, APIRoute) and "POST" in (route.methods or ())}
    named = {"{model:path}": SPEC.name, "{model}": SPEC.name, "{version}": "1", "{label}": "stable"}
    for name, value in named.items():
        paths = {path.replace(name, value) for path in paths}
    return paths


def test_too_many_values_are_refused_at_every_route_and_never_parsed(client: TestClient, unparsed: None) -> None:
    paths = posts(client.app)
    assert len(paths) > 20
    for path in sorted(paths):
        for name, (content, setting) in MANY.items():
            response = client.post(path, content=content, headers={"content-type": "application/json"})
            assert response.status_code in (400, 422), f"{path}, {name}: {response.status_code} {response.text[:300]}"
            assert setting in response.text, f"{path}, {name}: {response.text[:300]}"


def test_neither_is_what_comes_packed_in_a_form_or_before_binary_tensors(client: TestClient, unparsed: None) -> None:
    content, setting = MANY["strings"]
    tensors = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(content))}
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    for response in (
        client.post("/embed", content=gzip.compress(content), headers=packed),
        client.post(f"/v2/models/{SPEC.name}/infer", content=content + bytes(9), headers=tensors),
        client.post("/predict", data={"entries": content.decode()}, files={"image": b"a"}),
        client.post("/api/embed", content=content, headers={"content-type": "image/png"}),
    ):
        assert response.status_code in (400, 422), response.text
        assert setting in response.text
