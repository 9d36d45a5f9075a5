"""IEI's own routes and text-embeddings-inference's, as their clients use them."""

from __future__ import annotations

import time

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.pictures import base64_of, data_uri, jpeg, png
from tests.servers import Server

DIM = 192
FIRST, SECOND = base64_of(jpeg(name="chelsea")), base64_of(jpeg(name="coffee"))


def post(server: Server, path: str, body: object) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=60)


def test_original_client_gets_a_list_of_vectors_in_order(demo_server: Server) -> None:
    """As the original IEI's example client reads it: `response.json()` is the list."""
    both = post(demo_server, "/embed", {"inputs": [FIRST, SECOND]}).json()
    alone = [post(demo_server, "/embed", {"inputs": image}).json() for image in (FIRST, SECOND)]
    assert [len(vector) for vector in both] == [DIM, DIM]
    assert np.allclose(both, [vectors[0] for vectors in alone], atol=1e-5)
    assert not np.allclose(both[0], both[1], atol=1e-3)


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_sagemaker_routes_are_embed(demo_server: Server, path: str) -> None:
    body = {"inputs": [FIRST], "normalize": True, "pooling": "CLS"}
    assert np.allclose(post(demo_server, path, body).json(), post(demo_server, "/embed", body).json(), atol=1e-5)


def test_fields_of_the_request_count(demo_server: Server) -> None:
    plain, cut, normalized = (
        np.array(post(demo_server, "/embed", {"inputs": FIRST, **fields}).json()[0])
        for fields in ({}, {"dimensions": 10}, {"dimensions": 10, "normalize": True})
    )
    assert np.allclose(cut, plain[:10], atol=1e-5)
    assert np.allclose(normalized, cut / np.linalg.norm(cut), atol=1e-5)


def test_unknown_fields_and_those_for_texts_are_ignored(demo_server: Server) -> None:
    fields = {"truncate": True, "truncation_direction": "Right", "prompt_name": "query", "wait_for_model": True}
    with_fields = post(demo_server, "/embed", {"inputs": FIRST, **fields})
    assert with_fields.status_code == 200
    assert np.allclose(with_fields.json(), post(demo_server, "/embed", {"inputs": FIRST}).json(), atol=1e-5)


def test_all_tokens(demo_server: Server) -> None:
    tokens = np.array(post(demo_server, "/embed_all", {"inputs": [data_uri(png(), "image/png")]}).json())
    mean = post(demo_server, "/embed", {"inputs": [base64_of(png())]}).json()
    assert tokens.shape == (1, 197, DIM)
    assert np.allclose(tokens.mean(axis=1), mean, atol=1e-5)


def test_timings_are_in_the_headers(demo_server: Server) -> None:
    headers = post(demo_server, "/embed", {"inputs": FIRST}).headers
    times = {name: float(headers[f"x-{name}-time"]) for name in ("total", "preprocess", "queue", "inference")}
    assert times["total"] >= times["inference"] > 0


@pytest.mark.parametrize(
    ("body", "status", "error_type"),
    [
        ({"inputs": []}, 400, "Empty"),
        ({"inputs": ""}, 400, "Empty"),
        ({"inputs": [FIRST, "bm90IGFuIGltYWdl"]}, 400, "Validation"),
        ({"inputs": [FIRST, "not base64!"]}, 400, "Validation"),
        ({}, 422, "Validation"),
        ({"inputs": [1]}, 422, "Validation"),
        ({"inputs": FIRST, "normalize": "perhaps"}, 422, "Validation"),
        ({"inputs": FIRST, "pooling": "best"}, 422, "Validation"),
        ({"inputs": FIRST, "pooling": "last"}, 422, "Validation"),
        ({"inputs": FIRST, "pooling": "patches"}, 422, "Validation"),
        ({"inputs": FIRST, "dimensions": DIM + 1}, 422, "Validation"),
        ({"inputs": FIRST, "modality": "text"}, 422, "Validation"),
        ({"inputs": [FIRST[:100]] * 1025}, 422, "Validation"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_errors(demo_server: Server, body: object, status: int, error_type: str) -> None:
    response = post(demo_server, "/embed", body)
    error = response.json()
    assert response.status_code == status
    assert error["error_type"] == error_type
    assert error["error"] == error["detail"] != ""


def test_every_bad_input_is_named(demo_server: Server) -> None:
    error = post(demo_server, "/embed", {"inputs": ["####", FIRST, "AAAA"]}).json()["error"]
    assert "inputs[0]: " in error
    assert "inputs[1]: " not in error
    assert "inputs[2]: " in error


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [(b"{", "application/json", 400), (b"\xff{}", "application/json", 400), (b"{}", "text/plain", 415)],
)
def test_bodies_that_are_not_json(demo_server: Server, content: bytes, content_type: str, status: int) -> None:
    response = httpx.post(demo_server.url + "/embed", content=content, headers={"content-type": content_type})
    assert response.status_code == status
    assert response.json()["error_type"] == "Validation"


def test_info_and_health(demo_server: Server) -> None:
    info = httpx.get(demo_server.url + "/info").json()
    assert (info["model_id"], info["model_name"]) == ("demo", "demo")
    assert (info["dim"], info["pooling"], info["poolings"]["cls"]) == (DIM, "mean", DIM)
    assert info["rows"].keys() == {"patches", "tokens"}
    assert (info["normalize"], info["matryoshka"]) == ({"image": False}, None)
    assert info["poolings"].keys().isdisjoint(info["rows"])
    limits = {"max_inputs": 1024, "max_queue": 4096, "request_timeout_s": 300, "url_inputs": "public"}
    assert {name: info[name] for name in limits} == limits
    assert info["max_batch"] >= 1
    health = httpx.get(demo_server.url + "/health").json()
    assert health == {"message": "OK", "unix": pytest.approx(time.time(), abs=60)}
    assert httpx.get(demo_server.url + "/nowhere").json()["error_type"] == "Validation"


def test_inference_client_of_the_hub(demo_server: Server) -> None:
    client = InferenceClient(base_url=demo_server.url)
    vectors = client.feature_extraction(FIRST, normalize=True, truncate=True)
    assert vectors.shape == (1, DIM)
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)
    assert np.allclose(client.feature_extraction([FIRST, SECOND], normalize=True)[0], vectors[0], atol=1e-5)
    with pytest.raises(HfHubHTTPError, match="not base64"):
        client.feature_extraction("no picture!")


def test_inference_client_of_the_hub_with_texts(text_server: Server) -> None:
    client = InferenceClient(base_url=text_server.url)
    vectors = client.feature_extraction(["a cat", "a dog"], normalize=True)
    expected = post(text_server, "/embed", {"inputs": ["a cat", "a dog"], "normalize": True}).json()
    assert np.allclose(vectors, expected, atol=1e-5)
    with pytest.raises(HfHubHTTPError, match="over the model's limit"):
        client.feature_extraction("cat " * 1000)
    cut = client.feature_extraction("cat " * 1000, truncate=True, truncation_direction="left")
    assert cut.shape == (1, vectors.shape[1])


def test_texts_and_pictures_in_one_request(text_server: Server) -> None:
    mixed = post(text_server, "/embed", {"inputs": ["a cat", data_uri(jpeg(name="chelsea"))]}).json()
    cat = post(text_server, "/embed", {"inputs": "a cat"}).json()
    photo = post(text_server, "/embed", {"inputs": FIRST, "modality": "image"}).json()
    assert np.allclose(mixed, [*cat, *photo], atol=1e-5)


def test_a_picture_in_plain_base64_is_told_how_to_be_sent(text_server: Server) -> None:
    refused = post(text_server, "/embed", {"inputs": ["a cat", FIRST]})
    assert refused.status_code == 400
    assert "inputs[1]: is a picture (JPEG) in plain base64" in refused.json()["error"]
    assert "data:image/jpeg;base64,…" in refused.json()["error"]


def test_similarity_is_the_cosine(text_server: Server) -> None:
    sentences = ["a cat", "a dog on a mat", "stocks"]
    inputs = {"source_sentence": "a cat", "sentences": sentences}
    similarities = post(text_server, "/similarity", {"inputs": inputs, "parameters": {"truncate": True}}).json()
    vectors = np.array(post(text_server, "/embed", {"inputs": sentences, "normalize": True}).json())
    assert np.allclose(similarities, vectors @ vectors[0], atol=1e-5)
    assert similarities[0] == pytest.approx(1, abs=1e-5)


def test_sentence_similarity_of_the_hubs_client(text_server: Server) -> None:
    """It posts to the URL that it was given, with nothing behind it."""
    sentences = ["a cat", "a dog on a mat"]
    client = InferenceClient(model=text_server.url)
    similarities = client.sentence_similarity("a kitten", sentences)
    inputs = {"source_sentence": "a kitten", "sentences": sentences}
    assert np.allclose(similarities, post(text_server, "/similarity", {"inputs": inputs}).json(), atol=1e-5)
    with pytest.raises(HfHubHTTPError, match=r"inputs\.sentences\[1\]: is empty"):
        client.sentence_similarity("a kitten", ["a cat", ""])


def test_tokens_and_back(text_server: Server) -> None:
    texts = ["a cat on a mat", "cats"]
    tokenized = post(text_server, "/tokenize", {"inputs": texts}).json()
    assert [set(token) for token in tokenized[0]] == [{"id", "text", "special", "start", "stop"}] * len(tokenized[0])
    assert [token["special"] for token in tokenized[0]] == [True, *[False] * (len(tokenized[0]) - 2), True]
    assert texts[0][tokenized[0][1]["start"] : tokenized[0][-2]["stop"]] == texts[0]
    bare = post(text_server, "/tokenize", {"inputs": texts[0], "add_special_tokens": False}).json()
    assert bare[0] == tokenized[0][1:-1]
    ids = [[token["id"] for token in text] for text in tokenized]
    assert post(text_server, "/decode", {"ids": ids}).json() == texts
    assert post(text_server, "/decode", {"ids": ids[0]}).json() == texts[:1]
    assert post(text_server, "/decode", {"ids": ids[0], "skip_special_tokens": False}).json() != texts[:1]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/tokenize", {"inputs": []}, 400, "inputs is empty"),
        ("/tokenize", {"inputs": ["a", ""]}, 400, "inputs[1]: is empty"),
        ("/tokenize", {"inputs": "a", "prompt_name": "query"}, 422, "prompt"),
        ("/tokenize", {"inputs": ["a"] * 1025}, 422, "IEI_MAX_INPUTS"),
        ("/decode", {"ids": []}, 400, "ids is empty"),
        ("/decode", {"ids": [[1], []]}, 400, "ids[1]: is empty"),
        ("/decode", {"ids": [[1], [10**9]]}, 400, "ids[1]: has the token id 1000000000"),
        ("/decode", {"ids": [-1]}, 400, "ids[0]"),
        ("/decode", {"ids": "text"}, 422, "ids"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "inputs.sentences is empty"),
        (
            "/similarity",
            {"inputs": {"source_sentence": "a", "sentences": ["b", ""]}},
            400,
            "inputs.sentences[1]: is empty",
        ),
        (
            "/similarity",
            {"inputs": {"source_sentence": "", "sentences": ["b"]}},
            400,
            "inputs.source_sentence: is empty",
        ),
        ("/similarity", {"inputs": {"sentences": ["b"]}}, 422, "inputs.source_sentence"),
        ("/", {"inputs": {"sentences": ["b"]}}, 422, "inputs.source_sentence"),
        ("/", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "inputs.sentences is empty"),
        ("/", {"inputs": 7}, 422, "inputs: must be a string or a list of strings"),
        ("/", {"inputs": ["a", 7]}, 422, "inputs[1]: "),
        ("/similarity", {"inputs": ["a", "b"]}, 422, "inputs"),
    ],
)
def test_errors_of_text_routes(text_server: Server, path: str, body: object, status: int, words: str) -> None:
    response = post(text_server, path, body)
    assert response.status_code == status
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "body"), [("/tokenize", {"inputs": "a"}), ("/decode", {"ids": [1]})], ids=["tokenize", "decode"]
)
def test_models_of_images_alone_have_no_tokens_of_texts(demo_server: Server, path: str, body: object) -> None:
    response = post(demo_server, path, body)
    assert response.status_code == 422
    assert "takes no texts" in response.json()["error"]
