"""OpenAI's embeddings with OpenAI's own client, and Imbeddings' with what its README shows."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import numpy as np
import openai
import pytest

from tests.pictures import base64_of, data_uri, jpeg
from tests.servers import Server

DIM = 192
PATCHES = 196
FIRST, SECOND = jpeg(name="chelsea"), jpeg(name="coffee")
URIS = [data_uri(FIRST), data_uri(SECOND)]


@pytest.fixture(scope="module")
def client(demo_server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def post(server: Server, body: object) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60)


def embedded(server: Server, **fields: Any) -> np.ndarray:
    return np.array(httpx.post(f"{server.url}/embed", json=fields, timeout=60).json(), np.float32)


def test_client_gets_normalised_vectors(demo_server: Server, client: openai.OpenAI) -> None:
    """It asks for base64 unless told otherwise."""
    expected = embedded(demo_server, inputs=URIS, normalize=True)
    formats: tuple[Literal["float", "base64"] | openai.Omit, ...] = (openai.omit, "float", "base64")
    for encoding_format in formats:
        response = client.embeddings.create(model="demo", input=URIS, encoding_format=encoding_format)
        vectors: list[Any] = [item.embedding for item in response.data]  # typed as numbers, whatever their encoding
        if encoding_format == "base64":
            vectors = [np.frombuffer(base64.b64decode(vector), "<f4") for vector in vectors]
        assert np.allclose(vectors, expected, atol=1e-5)
        assert [(item.index, item.object) for item in response.data] == [(0, "embedding"), (1, "embedding")]
        assert (response.object, response.model) == ("list", "demo")
        assert response.usage.prompt_tokens == response.usage.total_tokens == 2 * PATCHES


def test_async_client(demo_server: Server) -> None:
    async def embed() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{demo_server.url}/v1", api_key="none") as client:
            answers = await asyncio.gather(
                *(client.embeddings.create(model="demo", input=[uri], user="me") for uri in URIS)
            )
            return [answer.data[0].embedding for answer in answers]

    assert np.allclose(asyncio.run(embed()), embedded(demo_server, inputs=URIS, normalize=True), atol=1e-5)


def test_any_string_is_an_image_to_a_model_of_images(demo_server: Server, client: openai.OpenAI) -> None:
    bare = client.embeddings.create(model="demo", input=base64_of(FIRST), extra_body={"modality": "image"})
    assert np.allclose(bare.data[0].embedding, embedded(demo_server, inputs=URIS[0], normalize=True)[0], atol=1e-5)


def test_dimensions_are_cut_before_normalising(demo_server: Server, client: openai.OpenAI) -> None:
    cut = client.embeddings.create(model="demo", input=URIS[0], dimensions=16).data[0].embedding
    expected = embedded(demo_server, inputs=URIS[0], dimensions=16, normalize=True)[0]
    assert len(cut) == 16
    assert np.allclose(cut, expected, atol=1e-5)
    assert np.linalg.norm(cut) == pytest.approx(1, abs=1e-5)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("google/other")


def test_wrong_requests_are_what_users_catch(client: openai.OpenAI) -> None:
    for fields in ({"dimensions": DIM + 1}, {"dimensions": -1}, {"encoding_format": "int8"}):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="demo", input=URIS, **fields)


def test_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="demo") as refused:
        client.embeddings.create(model="text-embedding-3-small", input=URIS)
    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"
    assert refused.value.type == "invalid_request_error"


def test_bad_items_are_all_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"(?s)input\[0\].*input\[2\]") as refused:
        client.embeddings.create(model="demo", input=["####", URIS[0], "AAAA"])
    assert refused.value.param == "input"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "demo"}, 400, "input"),
        ({"model": "demo", "input": []}, 400, "input"),
        ({"model": "demo", "input": ""}, 400, "input"),
        ({"model": "demo", "input": None}, 400, "input"),
        ({"model": "demo", "input": [None]}, 400, "input"),
        ({"model": "demo", "input": [True]}, 400, "input"),
        ({"model": "demo", "input": [[1.5]]}, 400, "input"),
        ({"model": "demo", "input": [-1]}, 400, "input"),
        ({"model": "demo", "input": [URIS[0]] * 1025}, 400, "input"),
        ({"model": "demo", "input": {"image_url": URIS[0], "image_base64": URIS[0]}}, 400, "input"),
        ({"model": "demo", "input": [{"type": "image"}]}, 400, "input"),
        ({"model": "demo", "input": [{"type": "audio", "image_url": URIS[0]}]}, 400, "input"),
        ({"model": "demo", "input": [URIS[0], {"image_url": URIS[0]}]}, 400, "input"),
        ({"model": "demo", "input": [{"image_url": URIS[0]}, {"image_base64": "AAAA"}]}, 400, "input"),
        ({"model": "demo", "input": URIS, "dimensions": -1}, 400, "dimensions"),
        ({"model": "demo", "input": URIS, "dimensions": DIM + 1}, 400, "dimensions"),
        ({"model": "demo", "input": URIS, "encoding_format": "int8"}, 400, "encoding_format"),
        ({"model": "demo", "input": [{"type": "image_url", "image_url": {"uri": URIS[0]}}]}, 400, "input"),
        ({"model": "demo", "input": URIS, "truncation_direction": "up"}, 400, "truncation_direction"),
        ({"model": "demo", "input": [1, 2, 3]}, 400, "input"),
        ({"model": "demo", "input": [1, 2, 3], "token_ids": "model"}, 400, None),
        ({"model": "demo", "input": "cats", "modality": "text"}, 400, None),
        ([], 400, None),
    ],
    ids=lambda value: str(value)[:70],
)
def test_errors_have_openais_shape(demo_server: Server, body: object, status: int, param: str | None) -> None:
    response = post(demo_server, body)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["param"] == param
    assert (error["type"], error["code"]) == ("invalid_request_error", None)
    assert response.json()["detail"] == response.json()["message"] == error["message"] != ""


def test_unknown_routes_and_methods_have_openais_shape(demo_server: Server) -> None:
    for response in (httpx.get(f"{demo_server.url}/v1/nowhere"), httpx.get(f"{demo_server.url}/v1/embeddings")):
        assert response.status_code in (404, 405)
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_imbeddings_client(demo_server: Server) -> None:
    """One image as base64, one as a data URI, each in the other's field, too."""
    items = [
        {"type": "image", "image_base64": base64_of(FIRST)},
        {"type": "image", "image_url": URIS[1]},
        {"type": "image", "image_url": base64_of(FIRST)},
        {"type": "image", "image_base64": URIS[1]},
    ]
    response = post(demo_server, {"model": "demo", "input": items})
    answer = response.json()
    assert response.status_code == 200
    assert answer["usage"] == {"input_images": 4, "embedding_dim": DIM}
    assert [item["index"] for item in answer["data"]] == [0, 1, 2, 3]
    assert answer["model"] == "demo"
    for name, pooling in (("cls", "cls"), ("mean", "patch_mean")):
        vectors = [item["embeddings"][name] for item in answer["data"]]
        expected = embedded(demo_server, inputs=URIS, pooling=pooling, normalize=True)
        assert np.allclose(vectors, np.tile(expected, (2, 1)), atol=1e-5)


def test_imbeddings_need_a_class_token(zoo_server: Server) -> None:
    response = post(zoo_server, {"model": "swin", "input": [{"type": "image", "image_url": URIS[0]}]})
    assert response.status_code == 422
    assert "no class token" in response.json()["detail"]
    assert post(zoo_server, {"model": "swin", "input": URIS}).status_code == 200


SENTENCES = ["A cat sits on a mat", "A kitten is lying on a rug", "Shares fell sharply on Monday"]


@pytest.fixture(scope="module")
def text_client(text_server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{text_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_texts_that_mean_the_same_are_close(text_client: openai.OpenAI) -> None:
    """With trained weights."""
    vectors = [item.embedding for item in text_client.embeddings.create(model="minilm", input=SENTENCES).data]
    cosines = np.array(vectors) @ vectors[0]
    assert cosines[0] == pytest.approx(1, abs=1e-5)
    assert cosines[1] > 0.5 > 0.2 > cosines[2]


def test_token_ids_are_texts(text_server: Server, text_client: openai.OpenAI) -> None:
    """One list is one text; with or without the special tokens; usage counts these. The request says whose they are."""
    own = {"token_ids": "model"}
    texts = text_client.embeddings.create(model="clip", input=SENTENCES)
    tokenized = httpx.post(f"{text_server.url}/tokenize", json={"inputs": SENTENCES}).json()
    ids = [[token["id"] for token in text] for text in tokenized]
    same = text_client.embeddings.create(model="clip", input=ids, extra_body=own)
    bare = text_client.embeddings.create(model="clip", input=[text[1:-1] for text in ids], extra_body=own)
    for response in (same, bare):
        assert np.allclose(
            [item.embedding for item in response.data], [item.embedding for item in texts.data], atol=1e-5
        )
        assert response.usage.prompt_tokens == sum(map(len, ids)) == texts.usage.prompt_tokens
    one = text_client.embeddings.create(model="clip", input=ids[1], extra_body=own)
    assert np.allclose([item.embedding for item in one.data], [texts.data[1].embedding], atol=1e-5)


def test_texts_and_images_in_one_request(text_client: openai.OpenAI) -> None:
    def vectors(*inputs: str, **options: Any) -> np.ndarray:
        return np.array(
            [item.embedding for item in text_client.embeddings.create(model="clip", input=inputs, **options).data]
        )

    mixed = vectors("a cat", URIS[0])
    assert np.allclose(mixed[:1], vectors("a cat"), atol=1e-5)
    assert np.allclose(mixed[1:], vectors(base64_of(FIRST), extra_body={"modality": "image"}), atol=1e-5)
    assert np.allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-5)


def test_long_texts_are_refused_unless_cut(text_client: openai.OpenAI) -> None:
    long = "cat " * 600
    with pytest.raises(openai.BadRequestError, match="over the model's limit") as refused:
        text_client.embeddings.create(model="minilm", input=["a cat", long])
    assert refused.value.param == "input"
    cut = text_client.embeddings.create(model="minilm", input=long, extra_body={"truncate": True})
    assert cut.usage.prompt_tokens <= 512


def test_fields_for_texts_count(text_client: openai.OpenAI) -> None:
    def vector(text: str, **fields: Any) -> list[float]:
        return text_client.embeddings.create(model="minilm", input=text, extra_body=fields).data[0].embedding

    text = "fox " * 300 + "cat"
    left, right = (vector(text, truncate=True, truncation_direction=end) for end in ("Left", "right"))
    assert np.allclose(left, vector("fox " * 253 + "cat"), atol=1e-5)
    assert np.allclose(right, vector("fox " * 254), atol=1e-5)
    with pytest.raises(openai.BadRequestError, match="this model has no prompt 'query'"):
        vector("a cat", prompt_name="query")


@pytest.mark.parametrize("ids", [[10**9], [[1], []]])
def test_what_is_no_token_is_refused(text_client: openai.OpenAI, ids: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="input"):
        text_client.embeddings.create(model="minilm", input=ids, extra_body={"token_ids": "model"})


def test_other_models_are_listed_after_the_default(text_client: openai.OpenAI) -> None:
    assert [model.id for model in text_client.models.list()] == ["clip", "minilm"]
