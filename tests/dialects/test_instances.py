"""`{"instances": […]}`: every form of an instance, as KServe V1, TensorFlow Serving and Vertex AI document them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.pictures import base64_of, data_uri, jpeg
from tests.servers import Server, serve

CAT, CUP = (base64_of(jpeg(name=name)) for name in ("chelsea", "coffee"))
URI = data_uri(jpeg(name="chelsea"))
TEXT = "a cat"


def predict(server: Server, body: object, path: str = "/v1/models/clip:predict") -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=60)


def predictions(server: Server, body: object, path: str = "/v1/models/clip:predict") -> Any:
    response = predict(server, body, path)
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


def embedded(server: Server, inputs: object, **fields: object) -> np.ndarray:
    """What `/embed` answers."""
    answer = httpx.post(f"{server.url}/embed", json={"inputs": inputs, **fields}, timeout=60).json()
    return np.array(answer)


@pytest.mark.parametrize(
    "instance",
    [
        URI,
        {"b64": CAT},
        {"image": {"b64": CAT}},
        {"image": CAT},
        {"image_bytes": {"b64": CAT}},
        {"data": CAT},
        {"data": {"b64": CAT}},
        {"b64": URI},
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_image_becomes_a_vector(text_server: Server, instance: object) -> None:
    assert np.allclose(predictions(text_server, {"instances": [instance]}), embedded(text_server, URI), atol=1e-5)


def test_texts_become_vectors_as_at_embed(text_server: Server) -> None:
    found = predictions(text_server, {"instances": [TEXT, {"text": "a cup"}], "signature_name": "serving_default"})
    assert np.allclose(found, embedded(text_server, [TEXT, "a cup"]), atol=1e-5)


def test_kinds_may_be_mixed_and_keep_their_order(text_server: Server) -> None:
    body = {"instances": [{"b64": CUP}, TEXT, {"inputs": [URI, TEXT]}, {"text": "a cup"}]}
    cup, text, both, other = predictions(text_server, body)
    assert np.allclose(cup, embedded(text_server, CUP, modality="image")[0], atol=1e-5)
    assert np.allclose([text, other], embedded(text_server, [TEXT, "a cup"]), atol=1e-5)
    assert np.allclose(both, embedded(text_server, [URI, TEXT]), atol=1e-5)


def test_models_by_path(text_server: Server) -> None:
    wanted = embedded(text_server, [TEXT])
    for path in ("/versions/1", "/labels/stable"):
        found = predictions(text_server, {"instances": [TEXT]}, f"/v1/models/clip{path}:predict")
        assert np.allclose(found, wanted, atol=1e-5)
    minilm = httpx.post(f"{text_server.url}/v1/embeddings", json={"model": "minilm", "input": TEXT}).json()
    found = predictions(text_server, {"instances": [TEXT]}, "/v1/models/minilm:predict")
    assert np.allclose(found[0], minilm["data"][0]["embedding"], atol=1e-5)
    assert np.allclose(predictions(text_server, {"instances": [TEXT]}, "/m/minilm/vertex"), found, atol=1e-5)


def test_parameters_are_the_options_of_embed(text_server: Server) -> None:
    body = {"instances": [TEXT, URI], "parameters": {"normalize": True, "dimensions": 8, "pooling": "Pooler"}}
    wanted = embedded(text_server, [TEXT, URI], normalize=True, dimensions=8, pooling="pooler")
    assert np.allclose(predictions(text_server, body), wanted, atol=1e-5)
    raw = {"instances": [TEXT], "parameters": {"normalize": False}}
    assert np.allclose(predictions(text_server, raw), embedded(text_server, [TEXT], normalize=False), atol=1e-5)
    images = {"instances": [CAT], "parameters": {"modality": "image"}}
    assert np.allclose(predictions(text_server, images), embedded(text_server, [URI]), atol=1e-5)
    assert predict(text_server, {"instances": ["word " * 500], "parameters": {"truncate": True}}).status_code == 200
    assert predict(text_server, {"instances": [TEXT], "parameters": None}).status_code == 200


def test_instances_as_text_embeddings_inference_takes_them(text_server: Server) -> None:
    """On Vertex AI its answer has a list of vectors for each instance, even for one string."""
    body = {
        "instances": [
            {"inputs": TEXT},
            {"inputs": [TEXT, "a cup"], "normalize": False, "dimensions": 4, "truncate": True},
            {"inputs": URI, "normalize": True},
        ],
        "parameters": {"dimensions": 8},
    }
    one, two, picture = predictions(text_server, body, "/vertex")
    assert np.allclose(one, embedded(text_server, [TEXT], dimensions=8), atol=1e-5)
    assert np.allclose(two, embedded(text_server, [TEXT, "a cup"], normalize=False, dimensions=4), atol=1e-5)
    assert np.allclose(picture, embedded(text_server, [URI], normalize=True, dimensions=8), atol=1e-5)


def test_instances_as_googles_multimodal_embeddings(text_server: Server) -> None:
    image = {"bytesBase64Encoded": CAT, "mimeType": "image/jpeg"}
    body = {"instances": [{"image": image, "text": TEXT}, {"image": image}, {"text": TEXT}]}
    both, picture, text = predictions(text_server, body, "/vertex")
    assert [list(each) for each in (both, picture, text)] == [
        ["textEmbedding", "imageEmbedding"],
        ["imageEmbedding"],
        ["textEmbedding"],
    ]
    wanted = embedded(text_server, [TEXT, URI], normalize=True)
    assert np.allclose([both["textEmbedding"], both["imageEmbedding"]], wanted, atol=1e-5)
    assert np.allclose([text["textEmbedding"], picture["imageEmbedding"]], wanted, atol=1e-5)
    (short,) = predictions(text_server, {"instances": [{"text": TEXT}], "parameters": {"dimension": 8}}, "/vertex")
    assert np.allclose(short["textEmbedding"], embedded(text_server, TEXT, normalize=True, dimensions=8), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "instances: Field required"),
        ({"instances": []}, "instances is empty"),
        ({"instances": TEXT}, "instances: Input should be a valid array"),
        ({"instances": [[[0.0, 0.1]]]}, "instances[0]: must be a string or an object; images are sent as encoded"),
        ({"instances": [TEXT, 7]}, "instances[1]: must be a string or an object"),
        ({"instances": [{}]}, "instances[0]: must have exactly one of b64, image, image_bytes, data, text and inputs"),
        ({"instances": [{"b64": CAT, "text": TEXT}]}, "instances[0]: must have exactly one of"),
        ({"instances": [{"image": {"b64": CAT}, "text": TEXT}]}, "instances[0]: must have exactly one of"),
        ({"instances": [{"image": {"gcsUri": "gs://b/cat.jpg"}}]}, "instances[0].image: must have exactly one of"),
        ({"instances": [{"video": {"gcsUri": "gs://b/cat.mp4"}}]}, "instances[0]: must have exactly one of"),
        ({"instances": [TEXT, {"b64": "####"}]}, "instances[1]: is not base64"),
        ({"instances": [{"b64": "AAAA"}, {"data": ""}]}, "instances[0]: is not an image"),
        ({"instances": [{"inputs": [TEXT, ""]}]}, "instances[0].inputs[1]: "),
        ({"instances": [{"inputs": []}]}, "instances[0]: inputs is empty"),
        ({"instances": [{"inputs": 7}]}, "instances[0].inputs: must be a string or a list of strings"),
        ({"instances": [{"image": {"bytesBase64Encoded": "AAAA"}}]}, "instances[0].image: is not an image"),
        ({"instances": [TEXT], "parameters": {"dimensions": 10**6}}, "dimensions must be from 1 to"),
        ({"instances": [TEXT], "parameters": {"pooling": "sum"}}, "parameters.pooling: Input should be"),
        ({"instances": [TEXT], "parameters": [1]}, "parameters: "),
        ({"instances": [TEXT] * 1025}, "instances have 1025 inputs, over the limit of 1024 (IEI_MAX_INPUTS)"),
        ({"instances": [{"inputs": [TEXT] * 600}, {"inputs": [TEXT] * 600, "dimensions": 4}]}, "have 1200 inputs"),
        ({"instances": ["word " * 500]}, "instances[0]: "),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.parametrize("path", ["/v1/models/clip:predict", "/vertex"])
def test_errors_are_400_with_an_error(text_server: Server, path: str, body: object, words: str) -> None:
    response = predict(text_server, body, path)
    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    assert words in response.json()["error"]


def test_models_and_versions_that_are_not_there(text_server: Server) -> None:
    for path, words in (
        ("none:predict", "model 'none' is not served here; served: clip, minilm"),
        ("clip/versions/2:predict", "model 'clip' has only version 1, not '2'"),
    ):
        response = predict(text_server, {"instances": [TEXT]}, f"/v1/models/{path}")
        assert response.status_code == 404
        assert response.json() == {"error": words}


def test_a_model_of_images_reads_strings_as_images(demo_server: Server) -> None:
    found = predictions(demo_server, {"instances": [CAT, {"inputs": CAT}]}, "/v1/models/demo:predict")
    assert np.allclose([found[0], found[1][0]], embedded(demo_server, [CAT, CAT]), atol=1e-5)
    response = predict(demo_server, {"instances": [{"text": TEXT}]}, "/vertex")
    assert (response.status_code, response.json()) == (400, {"error": "model 'demo' takes no texts"})


ROUTES = {
    "AIP_HEALTH_ROUTE": "/v1/endpoints/123/deployedModels/456",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/123/deployedModels/456:predict",
}
"""As Vertex AI sets them, if the model's upload does not."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def vertex_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def vertex_server(demo_cache: str, vertex_port: int) -> Iterator[Server]:
    """`iei serve` with the variables of a container on Vertex AI, whose model is in the image."""
    env = {
        **ROUTES,
        "AIP_HTTP_PORT": str(vertex_port),
        "AIP_STORAGE_URI": "gs://bucket/model",
        "AIP_MODE": "PREDICTION",
        "IMAGE_EMBEDDING_MODEL": "demo",
        "IEI_CACHE_DIR": demo_cache,
        "IEI_WORKERS": "1",
    }
    with serve(env, command=["python", "-m", "iei", "serve"]) as server:
        yield server


@pytest.mark.server
def test_a_container_on_vertex_ai(vertex_server: Server, vertex_port: int) -> None:
    """The requests that Vertex AI documents for a custom container."""
    assert vertex_server.url == f"http://127.0.0.1:{vertex_port}"
    assert httpx.get(vertex_server.url + ROUTES["AIP_HEALTH_ROUTE"]).status_code == 200
    wanted = embedded(vertex_server, [CAT])
    for path in (ROUTES["AIP_PREDICT_ROUTE"], "/vertex"):
        found = predictions(vertex_server, {"instances": [{"b64": CAT}], "parameters": {}}, path)
        assert np.allclose(found, wanted, atol=1e-5)
    refused = predict(vertex_server, {"instances": [7]}, ROUTES["AIP_PREDICT_ROUTE"])
    assert (refused.status_code, list(refused.json())) == (400, ["error"])


@pytest.mark.server
def test_a_predict_route_may_be_litserves_and_names_of_models_may_contain_slashes(demo_cache: str) -> None:
    env = {"AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/predict", "IEI_MODELS": "org/demo=demo"}
    with serve({**env, "IEI_CACHE_DIR": demo_cache}, workers=1) as server:
        wanted = embedded(server, [CAT])
        for path in ("/predict", "/v1/models/org/demo:predict", "/v1/models/org/demo/versions/1:predict"):
            assert np.allclose(predictions(server, {"instances": [{"b64": CAT}]}, path), wanted, atol=1e-5)
        assert predict(server, {}, "/predict").json() == {"error": "instances: Field required"}
        assert httpx.get(f"{server.url}/health").status_code == 200
