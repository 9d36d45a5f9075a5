"""Partial answers: a bad input costs its own vector, in every dialect whose form has room for that."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from iei.dialects.partial import MAX_ERRORS_BYTES, error_headers
from iei.errors import IEIError, InvalidInput
from tests.pictures import base64_of, encode, png
from tests.servers import Server

GOOD, BAD = base64_of(png()), base64_of(b"not a picture")
GOOD_URI, BAD_URI = f"data:image/png;base64,{GOOD}", f"data:image/png;base64,{BAD}"
ITEMS = (GOOD_URI, BAD_URI, GOOD_URI)
TIMEOUT_S = 300
"""A thousand pictures take long where other programs run, too."""
NULL = {"x-iei-on-error": "null"}


class Form(NamedTuple):
    """How a dialect has inputs and vectors."""

    body: Callable[[list[str]], dict[str, Any]]
    vectors: Callable[[Any], list[Any]]
    message: str | None = "error"
    """Where the message is in an entry of `errors`. None: the answer has no room for those."""
    within: str | None = None
    """The field of the body that has the options."""


def _parts(items: list[str]) -> dict[str, Any]:
    return {"inputs": [{"content": [{"type": "image_url", "image_url": item}]} for item in items]}


def _tensor(items: list[str]) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": [len(items)], "datatype": "BYTES", "data": items}]}


def _inferred(answer: Any) -> Any:
    return json.loads(answer["outputs"][0]["data"][0])


def _field(name: str, of: str = "data") -> Callable[[Any], list[Any]]:
    return lambda answer: [item[name] for item in answer[of]]


LIST = Form(lambda items: {"inputs": items}, list, message=None)

FORMS: dict[str, Form] = {
    "/embed": LIST,
    "/embed_all": LIST,
    "/": LIST,
    "/invocations": LIST,
    "/v1/embeddings": Form(lambda items: {"input": items}, _field("embedding"), "message"),
    "/v1/embeddings of Imbeddings": Form(
        lambda items: {"input": [{"type": "image", "image_url": item} for item in items]},
        _field("embeddings"),
        "message",
    ),
    "/embeddings": Form(lambda items: {"content": items}, lambda a: [each["embedding"] for each in a], None),
    "/embedding": Form(lambda items: {"content": items}, lambda a: [each["embedding"] for each in a], None),
    "/v1/embed": Form(lambda items: {"images": items}, lambda answer: answer["embeddings"], "message"),
    "/v2/embed": Form(
        lambda items: {**_parts(items), "embedding_types": ["int8", "base64"]},
        lambda answer: list(zip(*answer["embeddings"].values(), strict=True)),
        "message",
    ),
    "/v1/multimodalembeddings": Form(_parts, _field("embedding"), "detail"),
    "/api/embed": Form(lambda items: {"input": items}, lambda answer: answer["embeddings"]),
    "/v2/models/demo/infer": Form(_tensor, lambda a: _inferred(a)["embeddings"], "error", "parameters"),
    "/vertex": Form(lambda items: {"instances": items}, lambda a: a["predictions"], "error", "parameters"),
    "/predict": Form(lambda items: {"image_data": items}, lambda a: [each["cls_token"] for each in a], None),
    "/vectorize": Form(lambda items: {"images": items}, lambda answer: answer["imageVectors"]),
    "/qdrant": Form(
        lambda items: {"inputs": [{"data": item, "data_type": "image", "model": "demo"} for item in items]},
        lambda answer: answer["embeddings"],
    ),
}


def post(server: Server, path: str, body: object, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.post(server.url + path.split()[0], json=body, headers=headers or {}, timeout=TIMEOUT_S)


def asked(form: Form, items: list[str], value: object) -> dict[str, Any]:
    body, option = form.body(items), {"on_error": value}
    return {**body, **({form.within: option} if form.within else option)}


@pytest.mark.parametrize("path", FORMS)
def test_a_bad_input_costs_its_own_vector(demo_server: Server, path: str) -> None:
    form = FORMS[path]
    expected = form.vectors(post(demo_server, path, form.body([GOOD_URI])).json())
    for items in (list(ITEMS), [BAD_URI]):
        wanted = [expected[0] if item == GOOD_URI else None for item in items]
        by_header = post(demo_server, path, form.body(items), NULL)
        by_field = post(demo_server, path, asked(form, items, "Null"))
        for response in (by_header, by_field):
            assert response.status_code == 200, response.text
            answer = response.json()
            vectors = form.vectors(answer)
            assert [None if one in (None, (None, None)) else one for one in vectors] == wanted
            index = str(items.index(BAD_URI))
            assert response.headers["x-iei-failed"] == "1"
            message = json.loads(response.headers["x-iei-errors"])[index]
            assert f"[{index}]" in message
            assert "is not an image" in message
            if form.message:
                (entry,) = (_inferred(answer) if form.within and "outputs" in answer else answer)["errors"]
                assert (str(entry["index"]), entry[form.message]) == (index, message)


@pytest.mark.parametrize("path", FORMS)
def test_the_default_is_to_refuse_the_request(demo_server: Server, path: str) -> None:
    form = FORMS[path]
    for body in (form.body(list(ITEMS)), asked(form, list(ITEMS), "fail")):
        response = post(demo_server, path, body)
        assert response.status_code == 400, response.text
        assert "[1]" in response.text
    # the field counts before the header
    assert post(demo_server, path, asked(form, list(ITEMS), "fail"), NULL).status_code == 400


@pytest.mark.parametrize("path", FORMS)
def test_an_answer_without_errors_is_the_same(demo_server: Server, path: str) -> None:
    form = FORMS[path]
    response = post(demo_server, path, form.body([GOOD_URI]), NULL)
    assert "errors" not in response.text
    assert not {"x-iei-failed", "x-iei-errors"} & response.headers.keys()
    plain = post(demo_server, path, form.body([GOOD_URI]))
    assert form.vectors(response.json()) == form.vectors(plain.json())


@pytest.mark.parametrize("path", FORMS)
def test_wrong_values_are_refused_by_name(demo_server: Server, path: str) -> None:
    form = FORMS[path]
    for value in ("skip", None, 0):
        response = post(demo_server, path, asked(form, [GOOD_URI], value))
        assert response.status_code in (400, 422), response.text
        assert "on_error" in response.text
    response = post(demo_server, path, form.body([GOOD_URI]), {"x-iei-on-error": "skip"})
    assert response.status_code in (400, 422), response.text
    assert "x-iei-on-error: must be fail or null, not 'skip'" in response.text


PAIR = {"inputs": {"source_sentence": GOOD_URI, "sentences": [GOOD_URI]}}
WHOLE: dict[str, tuple[dict[str, Any], str]] = {
    "/similarity": (PAIR, "scores compare"),
    "/ with sentences": (PAIR, "scores compare"),
    "/ with labels": ({"inputs": GOOD_URI, "parameters": {"candidate_labels": ["a cat"]}}, "scores compare"),
    "/classify": ({"inputs": GOOD_URI, "parameters": {"candidate_labels": ["a cat"]}}, "scores compare"),
    "/rank": ({"query": GOOD_URI, "candidates": [GOOD_URI]}, "scores compare"),
    "/vectors": ({"image": GOOD}, "takes one input"),
    "/api/embeddings": ({"prompt": GOOD_URI}, "takes one input"),
    "/v2/models/clip/infer": (
        {**_tensor([GOOD]), "outputs": [{"name": "output"}, {"name": "embedding"}]},
        "the tensor embedding has no null",
    ),
}


@pytest.mark.parametrize("path", WHOLE)
def test_what_has_no_partial_answers_says_so(text_server: Server, path: str) -> None:
    body, reason = WHOLE[path]
    response = post(text_server, path, body, NULL)
    assert response.status_code in (400, 422), response.text
    assert "can't be null here" in response.text
    assert reason in response.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/similarity", {**PAIR, "parameters": {"on_error": "null"}}),
        ("/", {**PAIR, "on_error": "null"}),
        ("/rank", {"query": "a", "candidates": ["b"], "on_error": "null"}),
        ("/classify", {"inputs": GOOD_URI, "parameters": {"candidate_labels": ["a"], "on_error": "null"}}),
    ],
)
def test_comparisons_say_so_of_the_field_too(text_server: Server, path: str, body: dict[str, Any]) -> None:
    response = post(text_server, path, body)
    assert response.status_code == 422, response.text
    assert "on_error" in response.text
    assert "can't be null here" in response.text


def test_one_bad_picture_of_1000_costs_one(demo_server: Server) -> None:
    colours = [base64_of(encode(Image.new("RGB", (8, 8), (value * 36, 99, 0)), "PNG")) for value in range(7)]
    pictures = [colours[index % len(colours)] for index in range(1000)]
    pictures[617] = BAD
    response = post(demo_server, "/embed", {"inputs": pictures, "on_error": "null"})
    assert response.status_code == 200, response.text
    vectors = response.json()
    assert len(vectors) == 1000
    assert [index for index, vector in enumerate(vectors) if vector is None] == [617]
    assert json.loads(response.headers["x-iei-errors"]).keys() == {"617"}
    alone = [post(demo_server, "/embed", {"inputs": colour}).json()[0] for colour in colours]
    for index, vector in enumerate(vectors):
        if vector is not None:
            np.testing.assert_allclose(vector, alone[index % len(colours)], atol=1e-5)


def test_forms_and_queries_have_the_option(demo_server: Server) -> None:
    files = [("image", ("a.png", png())), ("image", ("b.png", b"no")), ("image", ("c.png", png()))]
    for arguments in ({"data": {"on_error": "null"}}, {"params": {"on_error": "null"}}, {"headers": NULL}):
        response = httpx.post(f"{demo_server.url}/embed", files=files, **arguments)  # type: ignore[arg-type]
        assert response.status_code == 200, response.text
        assert [vector is None for vector in response.json()] == [False, True, False]
        assert json.loads(response.headers["x-iei-errors"])["1"].startswith("image[1] (b.png): ")
    refused = httpx.post(f"{demo_server.url}/embed?on_error=skip", files=files)
    assert refused.status_code == 422
    assert refused.json()["error"].startswith("on_error: ")


@pytest.mark.parametrize("path", ["/embed", "/embed_all"])
def test_arrow_has_null_and_one_array_has_not(demo_server: Server, path: str) -> None:
    body = {"inputs": list(ITEMS), "on_error": "null"}
    for accepts in ("application/x-npy", "application/octet-stream"):
        refused = post(demo_server, path, body, {"accept": accepts})
        assert refused.status_code == 406
        assert "has no null" in refused.json()["error"]
    expected = post(demo_server, path, body).json()

    def column(items: list[str]) -> Any:
        response = post(demo_server, path, {**body, "inputs": items}, {"accept": "application/vnd.apache.arrow.stream"})
        return pa.ipc.open_stream(io.BytesIO(response.content)).read_all()["embedding"]

    vectors = column(list(ITEMS))
    assert vectors.null_count == 1
    assert vectors[1].as_py() is None
    for index in (0, 2):
        np.testing.assert_allclose(vectors[index].as_py(), expected[index], atol=1e-5)
    assert column([BAD]).type == pa.null()


def test_items_that_a_dialect_can_not_read_are_bad_inputs(text_server: Server) -> None:
    """What has too many parts is known before anything is decoded, and named together with what is found later."""
    text = {"type": "text", "text": "a cat"}
    documents = [{"content": [text]}, {"content": [text, text]}, {"content": [{"type": "text", "text": ""}]}]
    conversations: list[Any] = [[{"role": "user", "content": "a"}], [{"role": "system", "content": "b"}]]
    for path, body, bad in (
        ("/v2/embed", {"inputs": documents, "embedding_types": ["float"]}, [1, 2]),
        ("/v1/multimodalembeddings", {"inputs": documents}, [1, 2]),
        ("/v1/embeddings", {"messages": conversations}, [1]),
    ):
        refused = post(text_server, path, body)
        assert refused.status_code == 400
        assert all(f"[{index}]: " in refused.text for index in bad)
        answer = post(text_server, path, {**body, "on_error": "null"}).json()
        assert [entry["index"] for entry in answer["errors"]] == bad


def test_instances_with_several_inputs_name_those(text_server: Server) -> None:
    google = {"image": {"bytesBase64Encoded": BAD}, "text": "a cat"}
    instances = ["a cat", {"inputs": ["a cat", BAD_URI], "normalize": False}, google]
    response = post(text_server, "/vertex", {"instances": instances, "parameters": {"on_error": "null"}})
    assert response.status_code == 200, response.text
    answer = response.json()
    text, pair, both = answer["predictions"]
    assert pair[1] is None
    assert len(pair[0]) == len(text)
    assert both["imageEmbedding"] is None
    assert len(both["textEmbedding"]) == len(text)
    assert [entry["index"] for entry in answer["errors"]] == [1, 2]
    assert {entry["error"].split(":")[0] for entry in answer["errors"]} == {
        "instances[1].inputs[1]",
        "instances[2].image",
    }
    assert response.headers["x-iei-failed"] == "2"


def test_qdrants_groups_keep_their_indices(text_server: Server) -> None:
    inputs = [
        {"data": BAD, "data_type": "image", "model": "clip"},
        {"data": "a", "data_type": "text", "model": "minilm"},
        {"data": "b", "data_type": "text", "model": "clip"},
        {"data": "", "data_type": "text", "model": "minilm"},
    ]
    answer = post(text_server, "/qdrant", {"inputs": inputs, "on_error": "null"}).json()
    assert [vector is None for vector in answer["embeddings"]] == [True, False, False, True]
    assert [(entry["index"], entry["error"][:9]) for entry in answer["errors"]] == [(0, "inputs[0]"), (3, "inputs[3]")]


def test_the_header_has_as_many_errors_as_fit() -> None:
    errors: list[tuple[int, IEIError]] = [(index, InvalidInput("ü" * 50)) for index in range(1000)]
    headers = error_headers(errors)
    assert headers["x-iei-failed"] == "1000"
    assert headers["x-iei-errors"].isascii()
    assert len(headers["x-iei-errors"]) <= MAX_ERRORS_BYTES
    named = json.loads(headers["x-iei-errors"])
    assert 3 < len(named) < 1000
    assert list(named) == [str(index) for index in range(len(named))]
