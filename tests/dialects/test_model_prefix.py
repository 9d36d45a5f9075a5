"""`/m/{model}/…`: any model on the routes whose protocol has no field for one."""

from __future__ import annotations

import httpx
import pytest

from tests.pictures import data_uri, jpeg
from tests.servers import Server

PICTURE = data_uri(jpeg())


def test_the_model_in_the_path_is_the_one_that_answers(text_server: Server) -> None:
    def dimension(path: str) -> int:
        response = httpx.post(text_server.url + path, json={"inputs": "A cat"})
        assert response.status_code == 200, response.text
        return len(response.json()[0])

    clip, minilm = dimension("/embed"), dimension("/m/minilm/embed")
    assert minilm == 384 != clip
    assert dimension("/m/clip/embed") == clip
    assert dimension("/m/minilm") == minilm
    assert dimension("/m/minilm/") == minilm


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/predict"])
def test_an_unknown_model_is_an_error_of_the_route(text_server: Server, path: str) -> None:
    body = {"inputs": "A cat", "input": "A cat", "image_data": PICTURE}
    response = httpx.post(f"{text_server.url}/m/none{path}", json=body)
    assert response.status_code == 404, response.text


def test_a_model_that_the_request_names_comes_first(text_server: Server) -> None:
    body = {"input": "A cat"}
    for path, named, answering in [
        ("/m/minilm/v1/embeddings", None, "minilm"),
        ("/m/minilm/v1/embeddings", "default/not-specified", "minilm"),
        ("/m/minilm/v1/embeddings", "clip", "clip"),
        ("/v1/embeddings", None, "clip"),
    ]:
        response = httpx.post(text_server.url + path, json={**body, "model": named})
        assert response.json()["model"] == answering, (path, named)


def test_info_and_tokens_are_those_of_the_model(text_server: Server) -> None:
    assert httpx.get(f"{text_server.url}/m/minilm/info").json()["model_name"] == "minilm"
    tokens = {
        path: httpx.post(text_server.url + path, json={"inputs": "A cat"}).json()
        for path in ("/tokenize", "/m/minilm/tokenize")
    }
    assert tokens["/tokenize"] != tokens["/m/minilm/tokenize"]
