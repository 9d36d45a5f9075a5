"""The Open Inference Protocol with Triton's own clients, and with the predictor's documented requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from tests.pictures import base64_of, data_uri, jpeg
from tests.servers import Server

DIM = 192
FILES = [jpeg(name="chelsea"), jpeg(name="coffee")]
TEXTS = [base64_of(FILES[0]), data_uri(FILES[1])]


@pytest.fixture(scope="module")
def client(demo_server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(demo_server.url.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def expected(demo_server: Server) -> dict[str, np.ndarray]:
    """What /embed gives for FILES, by pooling."""
    return {
        pooling: np.array(
            httpx.post(f"{demo_server.url}/embed", json={"inputs": TEXTS, "pooling": pooling}).json(), np.float32
        )
        for pooling in ("mean", "cls", "max")
    }


def tensor(name: str, elements: Sequence[str | bytes], *, binary: bool) -> triton.InferInput:
    tensor = triton.InferInput(name, [len(elements)], "BYTES")
    tensor.set_data_from_numpy(np.array(elements, object), binary_data=binary)
    return tensor


def close(vectors: object, expected: np.ndarray) -> bool:
    return bool(np.allclose(np.array(vectors), expected, atol=1e-5))


def infer(server: Server, content: bytes | dict[str, Any], **headers: str) -> httpx.Response:
    if isinstance(content, dict):
        content = json.dumps(content).encode()
    return httpx.post(
        f"{server.url}/v2/models/demo/infer",
        content=content,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        timeout=60,
    )


def images(*data: str, **fields: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": data}], **fields}


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("demo")
    assert client.is_model_ready("demo", "1")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("demo", "2")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    for version in ("", "1"):
        metadata = client.get_model_metadata("demo", version)
        assert (metadata["name"], metadata["versions"]) == ("demo", ["1"])
        assert {"name": "image", "datatype": "BYTES", "shape": [-1]} in metadata["inputs"]
        assert {"name": "embedding", "datatype": "FP32", "shape": [-1, -1]} in metadata["outputs"]


@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize(("elements", "binary"), [(TEXTS, False), (TEXTS, True), (FILES, True)])
def test_tritonclient_gets_fp32(
    client: triton.InferenceServerClient,
    expected: dict[str, np.ndarray],
    elements: Sequence[str | bytes],
    binary: bool,
    binary_output: bool,
) -> None:
    wanted = triton.InferRequestedOutput("embedding", binary_data=binary_output)
    result = client.infer("demo", [tensor("image", elements, binary=binary)], outputs=[wanted], request_id="mine")
    vectors = result.as_numpy("embedding")
    assert vectors.dtype == np.float32
    assert close(vectors, expected["mean"])
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_version"] == "1"


def test_tritonclient_without_wishes_gets_the_json_as_bytes(
    client: triton.InferenceServerClient, expected: dict[str, np.ndarray]
) -> None:
    """It asks for everything in binary then."""
    result = client.infer("demo", [tensor("image", FILES, binary=True)], model_version="1")
    answer = json.loads(result.as_numpy("output")[0])
    assert close(answer.pop("embeddings"), expected["mean"])
    assert answer == {"embedding_dim": DIM, "model_id": "demo", "shape": [2, DIM]}


@pytest.mark.parametrize("binary", [True, False])
def test_options_are_tensors(
    client: triton.InferenceServerClient, expected: dict[str, np.ndarray], binary: bool
) -> None:
    normalize = triton.InferInput("normalize", [1], "BOOL")
    normalize.set_data_from_numpy(np.array([True]), binary_data=binary)
    options = [tensor("pooling_strategy", ["cls"], binary=binary), tensor("include_raw", ["true"], binary=binary)]
    result = client.infer("demo", [tensor("image", TEXTS, binary=binary), normalize, *options])
    unit = expected["cls"] / np.linalg.norm(expected["cls"], axis=1, keepdims=True)
    assert close(json.loads(result.as_numpy("output")[0])["embeddings"], unit)
    assert close(result.as_numpy("raw_embeddings"), unit)


@pytest.mark.parametrize("binary", [True, False])
def test_async_tritonclient(demo_server: Server, expected: dict[str, np.ndarray], binary: bool) -> None:
    """Its HTTP library calls every body octets, JSON too."""

    async def embed() -> np.ndarray:
        async with tritonclient.http.aio.InferenceServerClient(demo_server.url.removeprefix("http://")) as client:
            wanted = tritonclient.http.aio.InferRequestedOutput("embedding", binary_data=binary)
            result = await client.infer("demo", [tensor("image", TEXTS, binary=binary)], outputs=[wanted])
            return np.array(result.as_numpy("embedding"))

    assert close(asyncio.run(embed()), expected["mean"])


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_tritonclient_may_compress(
    client: triton.InferenceServerClient, expected: dict[str, np.ndarray], algorithm: str
) -> None:
    wanted = triton.InferRequestedOutput("embedding")
    images = [tensor("image", FILES, binary=True)]
    result = client.infer("demo", images, outputs=[wanted], request_compression_algorithm=algorithm)
    assert close(result.as_numpy("embedding"), expected["mean"])


@pytest.mark.parametrize("path", ["config", "stats", "versions/1/config"])
def test_a_route_that_there_is_not_is_no_model(demo_server: Server, path: str) -> None:
    answer = httpx.get(f"{demo_server.url}/v2/models/demo/{path}")
    assert answer.status_code == 404
    assert f"the model 'demo' has no '/{path}'; below /v2/models/demo there are /ready" in answer.json()["error"]


@pytest.mark.parametrize(("truncate", "same"), [("true", "word"), ("END", "word"), ("start", "other")])
def test_texts_that_are_too_long_are_cut_as_the_error_says(text_server: Server, truncate: str, same: str) -> None:
    def sent(text: str, *options: dict[str, Any]) -> httpx.Response:
        tensors = [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}, *options]
        body = {"inputs": tensors, "outputs": [{"name": "embedding"}]}
        return httpx.post(f"{text_server.url}/v2/models/minilm/infer", json=body, timeout=60)

    text = f"{'word ' * 600}{'other ' * 600}"
    assert "set truncate to true" in sent(text).json()["error"]
    cut = sent(text, {"name": "truncate", "shape": [1], "datatype": "BYTES", "data": [truncate]})
    expected = sent(f"{same} " * 200)
    assert cut.status_code == 200, cut.text
    assert cut.json()["outputs"][0]["shape"] == expected.json()["outputs"][0]["shape"]


def test_errors_reach_tritonclient(client: triton.InferenceServerClient) -> None:
    image = tensor("image", TEXTS, binary=True)
    calls: tuple[tuple[Callable[[], object], str, str], ...] = (
        (lambda: client.infer("other", [image]), "404", "served: demo"),
        (lambda: client.infer("demo", [image], model_version="2"), "404", "only version 1"),
        (lambda: client.infer("demo", [tensor("image", [TEXTS[0], "AAAA"], binary=True)]), "400", r"image\[1\]"),
        (lambda: client.infer("demo", [tensor("picture", TEXTS, binary=True)]), "400", "picture"),
        (lambda: client.infer("demo", [image, tensor("image", TEXTS, binary=True)]), "400", "two tensors"),
        (lambda: client.infer("demo", [image, tensor("pooling_strategy", ["best"], binary=True)]), "400", "cls, mean"),
        (lambda: client.infer("demo", [image, tensor("pooling_strategy", ["last"], binary=True)]), "400", "last token"),
        (lambda: client.infer("demo", [image, tensor("normalize", ["perhaps"], binary=True)]), "400", "true, false"),
        (lambda: client.infer("demo", [image, tensor("normalize", ["true"] * 2, binary=True)]), "400", "one element"),
        (lambda: client.infer("demo", [image], outputs=[triton.InferRequestedOutput("logits")]), "400", "logits"),
        (lambda: client.infer("demo", [tensor("text", ["cats"], binary=True)]), "400", "takes no texts"),
        (lambda: client.infer("demo", [tensor("text", [b"\xff"], binary=True)]), "400", "UTF-8"),
    )
    for call, status, words in calls:
        with pytest.raises(InferenceServerException, match=words) as refused:
            call()
        assert refused.value.status() == status


def test_predictors_client(demo_server: Server, expected: dict[str, np.ndarray]) -> None:
    """The predictor's own client: a constant in the header that says nothing, and an Accept for a stream of events."""
    for pooling in ("mean", "cls", "max"):
        body = images(TEXTS[0])
        body["inputs"].append({"name": "pooling_strategy", "shape": [1], "datatype": "BYTES", "data": [pooling]})
        response = infer(
            demo_server,
            body,
            content_type="application/json",
            accept="text/event-stream",
            inference_header_content_length="1234",
        )
        assert response.status_code == 200
        answer = response.json()
        assert (answer["model_name"], answer["model_version"]) == ("demo", "1")
        assert answer["id"]
        (output,) = answer["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("output", "BYTES", [1])
        result = json.loads(output["data"][0])
        assert (result["embedding_dim"], result["shape"]) == (DIM, [1, DIM])
        assert close(result["embeddings"], expected[pooling][:1])


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "image/jpeg"},
        {"content_type": "application/octet-stream"},
        {"content_type": "application/octet-stream", "inference_header_content_length": "0"},
        {"inference_header_content_length": "0"},
    ],
)
def test_a_file_alone_is_one_image(
    demo_server: Server, expected: dict[str, np.ndarray], headers: dict[str, str]
) -> None:
    response = infer(demo_server, FILES[0], **headers)
    assert response.status_code == 200
    assert close(json.loads(response.json()["outputs"][0]["data"][0])["embeddings"], expected["mean"][:1])


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"{", {}),
        (b"[]", {"content_type": "application/json"}),
        (b"{}", {}),
        (b"{}", {"inference_header_content_length": "3"}),
        (b"{}", {"inference_header_content_length": "-1"}),
        (b"{}", {"inference_header_content_length": "9" * 5000}),
        (b"no image", {"content_type": "image/png"}),
        (b"\x89PNG\r\n\x1a\n", {"content_type": "image/png"}),
        (json.dumps(images("####")).encode(), {}),
        (json.dumps(images()).encode(), {}),
        (json.dumps({"inputs": []}).encode(), {}),
        (json.dumps(images(TEXTS[0], outputs=[{"name": "output", "parameters": {"binary_data": 7}}])).encode(), {}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_malformed_bodies_are_the_clients_fault(demo_server: Server, content: bytes, headers: dict[str, str]) -> None:
    response = infer(demo_server, content, **headers)
    assert response.status_code == 400
    assert list(response.json()) == ["error"]


def test_what_is_not_there(demo_server: Server) -> None:
    for path in ("/v2/nowhere", "/v2/models/other", "/v2/models/demo/versions/7", "/v2/models/demo/versions/1/x"):
        response = httpx.get(demo_server.url + path)
        assert response.status_code == 404
        assert list(response.json()) == ["error"]


def test_models_are_listed_and_named_in_the_path(zoo_server: Server) -> None:
    assert httpx.get(f"{zoo_server.url}/v2/models").json()["models"][:2] == ["dinov3_vit", "swin"]
    for path in ("/v2/models/swin", "/v2/models/swin/versions/1"):
        answer = httpx.post(f"{zoo_server.url}{path}/infer", json=images(TEXTS[0]), timeout=60).json()
        assert answer["model_name"] == "swin"
        assert json.loads(answer["outputs"][0]["data"][0])["model_id"] == "swin"


@pytest.mark.parametrize("binary", [True, False])
def test_texts_are_a_tensor_of_their_own(text_server: Server, binary: bool) -> None:
    texts = ["a cat", "ein Kätzchen"]
    with triton.InferenceServerClient(text_server.url.removeprefix("http://")) as client:
        assert [tensor["name"] for tensor in client.get_model_metadata("clip")["inputs"]][:2] == ["image", "text"]
        assert client.get_model_metadata("minilm")["inputs"][0]["name"] == "text"
        wanted = triton.InferRequestedOutput("embedding", binary_data=binary)
        for model in ("clip", "minilm"):
            result = client.infer(model, [tensor("text", texts, binary=binary)], outputs=[wanted])
            response = httpx.post(f"{text_server.url}/v1/embeddings", json={"model": model, "input": texts}).json()
            vectors = result.as_numpy("embedding")
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            assert close(unit, np.array([item["embedding"] for item in response["data"]]))
        with pytest.raises(InferenceServerException, match="takes no images"):
            client.infer("minilm", [tensor("image", FILES, binary=True)])
        with pytest.raises(InferenceServerException, match="must have exactly one of the tensors"):
            client.infer("clip", [tensor("text", texts, binary=True), tensor("image", FILES, binary=True)])
