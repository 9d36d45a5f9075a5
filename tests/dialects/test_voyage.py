"""Voyage's multimodal embeddings: requests byte by byte as Weaviate sends them, and what is wrong with others."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from tests.pictures import base64_of, data_uri, jpeg, png
from tests.servers import Server

ROUTE = "/v1/multimodalembeddings"
TEXT = {"content": [{"type": "text", "text": "A cat sits on a mat"}]}
IMAGE = {"content": [{"type": "image_base64", "image_base64": data_uri(png(), "image/png")}]}


def embedded(server: Server, model: str, *inputs: str, **fields: Any) -> np.ndarray:
    """Vectors of `/embed`."""
    url = f"{server.url}/m/{model}/embed"
    return np.array(httpx.post(url, json={"inputs": inputs, "normalize": True, **fields}, timeout=60).json())


def post(server: Server, **body: Any) -> httpx.Response:
    return httpx.post(server.url + ROUTE, json=body, timeout=60)


@pytest.mark.parametrize("input_type", ["document", "query"])
def test_weaviate(text_server: Server, input_type: str) -> None:
    """multi2vec-voyageai: texts and images in one request, as numbers."""
    body = (
        '{"inputs":[{"content":[{"type":"text","text":"A cat sits on a mat"}]},'
        '{"content":[{"type":"image_base64","image_base64":"data:image/png;base64,' + base64_of(jpeg()) + '"}]}],'
        '"model":"clip","truncation":true,"input_type":"' + input_type + '"}'
    )
    headers = {
        "authorization": "Bearer none",
        "content-type": "application/json",
        "user-agent": "Go-http-client/1.1",
        "accept-encoding": "gzip",
    }
    response = httpx.post(text_server.url + ROUTE, content=body.encode(), headers=headers, timeout=60)
    assert response.status_code == 200
    answer = response.json()
    expected = embedded(text_server, "clip", "A cat sits on a mat", data_uri(jpeg()))
    np.testing.assert_allclose([item["embedding"] for item in answer["data"]], expected, atol=1e-5)
    assert [(item["object"], item["index"]) for item in answer["data"]] == [("embedding", 0), ("embedding", 1)]
    assert (answer["object"], answer["model"]) == ("list", "clip")
    assert answer["usage"].keys() == {"text_tokens", "image_pixels", "video_pixels", "total_tokens"}
    assert answer["usage"]["image_pixels"] == 500 * 375


def test_base64_is_of_the_smaller_numbers(text_server: Server) -> None:
    body = {"inputs": [TEXT, IMAGE], "model": "clip", "output_dtype": "int8"}
    numbers = [item["embedding"] for item in post(text_server, **body).json()["data"]]
    packed = [item["embedding"] for item in post(text_server, **body, encoding_format="base64").json()["data"]]
    assert [np.frombuffer(base64.b64decode(text), np.int8).tolist() for text in packed] == numbers


def test_null_means_the_default(text_server: Server) -> None:
    names = ("input_type", "truncation", "output_dtype", "output_dimension", "encoding_format", "model")
    assert post(text_server, inputs=[TEXT], **dict.fromkeys(names)).json() == post(text_server, inputs=[TEXT]).json()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "inputs: Field required"),
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": ["a"]}, "inputs[0]"),
        ({"inputs": [{"content": []}]}, "inputs[0].content"),
        ({"inputs": [{"content": [*TEXT["content"], *IMAGE["content"]]}]}, "inputs[0]: content: has 2 parts"),
        ({"inputs": [TEXT, {"content": [{"type": "video_base64", "video_base64": "AAAA"}]}]}, "inputs[1].content[0]"),
        (
            {"inputs": [TEXT, {"content": [{"type": "image_url", "image_url": "ftp://a/b"}]}]},
            "inputs[1]: is not base64",
        ),
        ({"inputs": [IMAGE], "model": "minilm"}, "takes no images"),
        ({"inputs": [TEXT], "model": "voyage-3"}, "'voyage-3' is not served here; served: clip, minilm"),
        ({"inputs": [TEXT], "output_dtype": "float16"}, "output_dtype"),
        ({"inputs": [TEXT], "encoding_format": "hex"}, "encoding_format"),
        ({"inputs": [TEXT], "output_dimension": 4096}, "dimensions must be from 1 to"),
        ({"inputs": [TEXT], "output_dimension": 12, "output_dtype": "binary"}, "multiple of 8"),
        ({"inputs": [TEXT], "truncation": "yes, please"}, "truncation"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_errors_are_400_with_a_detail(text_server: Server, body: dict[str, Any], words: str) -> None:
    response = post(text_server, **body)
    assert (response.status_code, response.json().keys()) == (400, {"detail"})
    assert words in response.json()["detail"]


def test_a_model_of_images_takes_no_texts(demo_server: Server) -> None:
    assert "takes no texts" in post(demo_server, inputs=[TEXT]).json()["detail"]
    answer = post(demo_server, inputs=[IMAGE]).json()
    np.testing.assert_allclose(
        answer["data"][0]["embedding"], embedded(demo_server, "demo", data_uri(png(), "image/png"))[0], atol=1e-5
    )
    assert answer["usage"]["text_tokens"] == 0
    assert answer["usage"]["image_pixels"] == 64 * 48
