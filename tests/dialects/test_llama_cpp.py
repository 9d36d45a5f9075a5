"""llama.cpp's own routes, as Frigate's semantic search calls them."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.pictures import base64_of, data_uri, jpeg
from tests.servers import Server

PICTURE = jpeg(name="chelsea")


def embedded(server: Server, *inputs: str, **fields: Any) -> NDArray[np.float32]:
    body = {"inputs": inputs, "normalize": True, **fields}
    return np.array(httpx.post(f"{server.url}/embed", json=body, timeout=60).json(), np.float32)


def vectors(response: httpx.Response) -> NDArray[np.float32]:
    """Of an answer in llama.cpp's format: each vector in a list of one."""
    assert response.status_code == 200, response.text
    answer = response.json()
    assert [item["index"] for item in answer] == list(range(len(answer)))
    assert all(len(item["embedding"]) == 1 for item in answer)
    return np.array([item["embedding"][0] for item in answer], np.float32)


def test_the_three_calls_of_frigate(text_server: Server) -> None:
    """Which models there are, how an image is marked, and vectors: of texts, then of images, as they were written."""
    base_url = f"{text_server.url}/v1".replace("/v1", "")  # what it does with its setting
    with httpx.Client(headers={"User-Agent": "python-requests/2.32", "Accept": "*/*"}, timeout=60) as frigate:
        models = frigate.get(f"{base_url}/v1/models").json()
        (entry,) = (model for model in models["data"] if "clip" in {model["id"], *model["aliases"]})
        assert "image" in entry["architecture"]["input_modalities"]
        props = frigate.get(f"{base_url}/props?model=clip").json()
        assert props["modalities"] == {"vision": True, "audio": False}
        assert props["default_generation_settings"]["n_ctx"] > 0
        marker = props["media_marker"]
        body = (
            '{"model": "clip", "content": [{"prompt_string": "a person at the door"}, '
            f'{{"prompt_string": "{marker}\\n", "multimodal_data": ["{base64_of(PICTURE)}"]}}]}}'
        )
        answer = frigate.post(
            f"{base_url}/embeddings", content=body.encode(), headers={"Content-Type": "application/json"}
        )
    assert np.allclose(vectors(answer), embedded(text_server, "a person at the door", data_uri(PICTURE)), atol=1e-5)


def test_a_failed_call_has_a_status_and_a_reason(text_server: Server) -> None:
    body = {"model": "clip", "content": [{"prompt_string": "<__media__>\n", "multimodal_data": ["AAAA"]}]}
    response = httpx.post(f"{text_server.url}/embeddings", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("content[0]: ")
    assert httpx.get(f"{text_server.url}/props", params={"model": "other"}).status_code == 404


@pytest.mark.parametrize("path", ["/embeddings", "/v1/embeddings", "/embedding"])
def test_content_is_answered_in_its_format(text_server: Server, path: str) -> None:
    """Also on OpenAI's route. Ids are the model's own there: they are of llama.cpp's `/tokenize`."""
    url, text = text_server.url, "a cat on a mat"
    expected = embedded(text_server, text)
    tokens = [token["id"] for token in httpx.post(f"{url}/tokenize", json={"inputs": text}).json()[0]]
    for content in (text, [text], tokens, [tokens], [{"prompt_string": text}]):
        assert np.allclose(vectors(httpx.post(url + path, json={"content": content})), expected, atol=1e-5)
    raw = httpx.post(url + path, json={"content": text, "embd_normalize": -1})
    assert np.allclose(vectors(raw), embedded(text_server, text, normalize=False), atol=1e-5)


def test_its_own_route_takes_input_too(text_server: Server) -> None:
    response = httpx.post(f"{text_server.url}/embedding", json={"input": ["a cat"]})
    assert np.allclose(vectors(response), embedded(text_server, "a cat"), atol=1e-5)


def test_props_of_a_model_for_texts(text_server: Server) -> None:
    for url in ("/props?model=minilm", "/m/minilm/props"):
        props = httpx.get(text_server.url + url).json()
        assert (props["model_alias"], props["modalities"]["vision"]) == ("minilm", False)
