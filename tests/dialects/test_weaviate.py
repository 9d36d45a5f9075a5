"""The routes of Weaviate's module containers, with the bytes that Weaviate's Go clients send.

Weaviate itself is a Go program that no package index carries, so these are replays of what its sources write
(modules/*/clients, usecases/modulecomponents/clients/transformers, v1.39): the order of keys and headers, fields that
are null, and no Content-Type but from multi2vec-clip. The last tests ask what the containers' own smoke tests ask.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from iei.engine.inprocess import InProcessEngine
from tests.apps import app_around, default_model
from tests.checkpoints.text_checkpoints import prompted_folder
from tests.engine.runtimes_for_tests import KnownRuntime
from tests.pictures import base64_of, data_uri, jpeg, png
from tests.replay import Answer, Connection
from tests.servers import Server

PICTURE, OTHER = base64_of(jpeg()), base64_of(png(name="rocket"))
TEXT = 'A <cat> & a "dog", ±5 °C'


def go_json(value: object) -> bytes:
    """As Go's encoding/json writes it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


class Weaviate(Connection):
    """What a module of Weaviate sends."""

    def get(self, path: str) -> Answer:
        return self.send("GET", path, {"Host": self.host, **_AGENT, **_ENCODING})

    def post(self, path: str, body: object, **more: str) -> Answer:
        content = go_json(body)
        headers = {"Host": self.host, **_AGENT, "Content-Length": str(len(content)), **more, **_ENCODING}
        return self.send("POST", path, headers, content)

    def img2vec(self, image: str, url: str = "") -> Answer:
        return self.post(f"{url}/vectors", {"id": "7ef1a6a2-3f5c-4c5e-a7a3-4c9d2a9b6a10_0", "image": image})

    def text2vec(self, text: str, url: str = "", **config: object) -> Answer:
        body = {"text": text, "dims": 0, "vector": None, "error": "", "config": config}
        return self.post(f"{url}/vectors", body)

    def clip(self, url: str = "", **inputs: list[str]) -> Answer:
        return self.post(f"{url}/vectorize", inputs, **{"Content-Type": "application/json"})

    def bind(self, **inputs: list[str]) -> Answer:
        return self.post("/vectorize", inputs)


_AGENT = {"User-Agent": "Go-http-client/1.1"}
_ENCODING = {"Accept-Encoding": "gzip"}


@pytest.fixture
def weaviate(text_server: Server) -> Iterator[Weaviate]:
    with Weaviate(text_server.url) as connection:
        yield connection


def embedded(server: Server, inputs: list[str], path: str = "/embed", **fields: object) -> NDArray[np.float32]:
    """As `/embed` has them, of length 1."""
    body = {"inputs": inputs, "normalize": True, **fields}
    return np.array(httpx.post(server.url + path, json=body, timeout=60).json(), np.float32)


def assert_same(vectors: Any, expected: NDArray[np.float32]) -> None:
    assert np.shape(vectors) == expected.shape
    assert np.abs(np.asarray(vectors) - expected).max() <= 1e-5
    assert np.allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)


class TestStart:
    def test_ready_and_live_are_204_without_a_body_and_keep_the_connection(self, weaviate: Weaviate) -> None:
        for path in ("/.well-known/ready", "/.well-known/live", "/m/minilm/.well-known/ready"):
            answer = weaviate.get(path)
            assert (answer.status, answer.body) == (204, b"")
            assert "content-length" not in answer.headers
        assert weaviate.img2vec(PICTURE).status == 200

    def test_meta_is_an_object_about_the_model(self, weaviate: Weaviate) -> None:
        for path, model in (("/meta", "clip"), ("/m/minilm/meta", "minilm")):
            answer = weaviate.get(path)
            assert answer.status == 200
            assert answer.json()["model"] == model
        assert answer.json()["dim"] == 384

    def test_a_model_that_is_not_served_is_never_ready(self, weaviate: Weaviate) -> None:
        answer = weaviate.get("/m/none/.well-known/ready")
        assert answer.status == 404
        assert answer.json()["error"] == "model 'none' is not served here; served: clip, minilm"

    def test_not_ready_before_the_engine_is(self) -> None:
        class Starting(InProcessEngine):
            @property
            def ready(self) -> bool:
                return False

        with TestClient(app_around(Starting(KnownRuntime()))) as client:
            assert client.get("/.well-known/live").status_code == 204
            response = client.get("/.well-known/ready")
            assert (response.status_code, response.json().keys()) == (503, {"error"})


class TestImg2vecNeural:
    def test_an_image(self, weaviate: Weaviate, text_server: Server) -> None:
        answer = weaviate.img2vec(PICTURE)
        assert answer.status == 200, answer.body
        body = answer.json()
        assert list(body) == ["id", "vector", "dim"]
        assert body["id"] == "7ef1a6a2-3f5c-4c5e-a7a3-4c9d2a9b6a10_0"
        assert body["dim"] == len(body["vector"])
        assert_same([body["vector"]], embedded(text_server, [PICTURE], modality="image"))

    def test_every_vision_model_will_do(self, demo_server: Server) -> None:
        with Weaviate(demo_server.url) as weaviate:
            assert_same([weaviate.img2vec(PICTURE).json()["vector"]], embedded(demo_server, [PICTURE]))

    def test_data_uris_are_images_too(self, weaviate: Weaviate) -> None:
        assert weaviate.img2vec(data_uri(jpeg())).json() == weaviate.img2vec(PICTURE).json()

    @pytest.mark.parametrize(
        ("image", "words"),
        [("", "image: is empty"), ("bm8=", "image: is not an image"), ("%", "image: is not base64")],
    )
    def test_what_is_no_image_is_refused_in_json(self, weaviate: Weaviate, image: str, words: str) -> None:
        answer = weaviate.img2vec(image)
        assert (answer.status, answer.json().keys()) == (400, {"error"})
        assert words in answer.json()["error"]

    def test_a_model_of_texts_takes_none(self, weaviate: Weaviate) -> None:
        answer = weaviate.img2vec(PICTURE, "/m/minilm")
        assert (answer.status, answer.json()) == (422, {"error": "model 'minilm' takes no images"})


class TestMulti2vecClip:
    def test_texts_and_images(self, weaviate: Weaviate, text_server: Server) -> None:
        answer = weaviate.clip(texts=["a cat", TEXT], images=[PICTURE, OTHER])
        assert answer.status == 200, answer.body
        assert list(answer.json()) == ["textVectors", "imageVectors"]
        assert_same(answer.json()["textVectors"], embedded(text_server, ["a cat", TEXT]))
        assert_same(answer.json()["imageVectors"], embedded(text_server, [PICTURE, OTHER], modality="image"))

    def test_keys_of_both_are_there_whatever_was_sent(self, weaviate: Weaviate, text_server: Server) -> None:
        texts, images = weaviate.clip(texts=["a cat"]).json(), weaviate.clip(images=[PICTURE]).json()
        assert (texts["imageVectors"], images["textVectors"]) == ([], [])
        assert_same(texts["textVectors"], embedded(text_server, ["a cat"]))
        assert_same(images["imageVectors"], embedded(text_server, [PICTURE], modality="image"))

    def test_long_texts_are_truncated_and_empty_ones_embedded(self, weaviate: Weaviate, text_server: Server) -> None:
        """As by the containers: a collection can ask for neither."""
        long = "word " * 300
        answer = weaviate.clip(texts=[long, "", "a cat"])
        assert answer.status == 200, answer.body
        vectors = answer.json()["textVectors"]
        assert_same([vectors[0], vectors[2]], embedded(text_server, [long, "a cat"], truncate=True))
        assert_same([vectors[1]], embedded(text_server, [" "]))

    def test_all_bad_items_are_named(self, weaviate: Weaviate) -> None:
        answer = weaviate.clip(texts=["a cat"], images=["%", PICTURE, "AAAA"])
        assert (answer.status, answer.json().keys()) == (400, {"error"})
        assert "images[0]: is not base64" in answer.json()["error"]
        assert "images[2]: is not an image" in answer.json()["error"]

    def test_a_model_of_images_takes_no_texts(self, demo_server: Server) -> None:
        with Weaviate(demo_server.url) as weaviate:
            answer = weaviate.clip(texts=["a cat"], images=[PICTURE])
            assert (answer.status, answer.json()) == (422, {"error": "model 'demo' takes no texts"})

    def test_the_url_chooses_the_model(self, weaviate: Weaviate, text_server: Server) -> None:
        vectors = weaviate.clip("/m/minilm", texts=["a cat"]).json()["textVectors"]
        assert_same(vectors, embedded(text_server, ["a cat"], "/m/minilm/embed"))


class TestMulti2vecBind:
    def test_texts_and_images(self, weaviate: Weaviate) -> None:
        inputs: dict[str, Any] = {"texts": ["a cat"], "images": [PICTURE]}
        assert weaviate.bind(**inputs).json() == weaviate.clip(**inputs).json()

    @pytest.mark.parametrize("kind", ["audio", "video", "imu", "thermal", "depth"])
    def test_what_no_model_takes_is_refused(self, weaviate: Weaviate, kind: str) -> None:
        answer = weaviate.bind(texts=["a cat"], **{kind: ["AAAA"]})
        assert (answer.status, answer.json()) == (422, {"error": f"{kind}: not offered: only texts and images are"})
        assert weaviate.bind(texts=["a cat"], **{kind: []}).status == 200


class TestText2vecTransformers:
    @pytest.mark.parametrize("task", ["passage", "query"])
    def test_a_text(self, weaviate: Weaviate, text_server: Server, task: str) -> None:
        answer = weaviate.text2vec(TEXT, "/m/minilm", pooling_strategy="masked_mean", task_type=task)
        assert answer.status == 200, answer.body
        body = answer.json()
        assert list(body) == ["text", "vector", "dim"]
        assert (body["text"], body["dim"]) == (TEXT, 384)
        assert_same([body["vector"]], embedded(text_server, [TEXT], "/m/minilm/embed"))

    def test_dimensions_and_pooling(self, weaviate: Weaviate, text_server: Server) -> None:
        cut = weaviate.text2vec("a cat", "/m/minilm", pooling_strategy="masked_mean", task_type="query", dimensions=64)
        assert_same([cut.json()["vector"]], embedded(text_server, ["a cat"], "/m/minilm/embed", dimensions=64))
        token = weaviate.text2vec("a cat", "/m/minilm", pooling_strategy="cls", task_type="query")
        assert_same([token.json()["vector"]], embedded(text_server, ["a cat"], "/m/minilm/embed", pooling="cls"))

    def test_weaviates_default_pooling_is_the_models_own(self, weaviate: Weaviate, text_server: Server) -> None:
        """Of CLIP it is not the mean."""
        answer = weaviate.text2vec("a cat", pooling_strategy="masked_mean", task_type="passage")
        assert_same([answer.json()["vector"]], embedded(text_server, ["a cat"]))

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"pooling_strategy": "max"}, "config.pooling_strategy: "),
            ({"dimensions": 0}, "config.dimensions: "),
            ({"dimensions": 385}, "dimensions must be from 1 to 384 for this model, not 385"),
        ],
    )
    def test_wrong_settings_are_refused(self, weaviate: Weaviate, config: dict[str, Any], words: str) -> None:
        answer = weaviate.text2vec("a cat", "/m/minilm", **config)
        assert (answer.status, answer.json().keys()) == (422, {"error"})
        assert words in answer.json()["error"]

    def test_the_task_chooses_the_prompt(self, tmp_path: Path) -> None:
        folder = prompted_folder(tmp_path, query="a question: ", document="an article: ")
        settings: dict[str, Any] = {"model": str(folder), "model_name": "prompted", "threads": 1}
        with TestClient(app_around(InProcessEngine(default_model(**settings)), **settings)) as client:
            for task, prompt in (("query", "a question: "), ("passage", "an article: "), (None, "")):
                config = {"pooling_strategy": "masked_mean", **({"task_type": task} if task else {})}
                vector = client.post("/vectors", content=go_json({"text": "a cat", "config": config})).json()["vector"]
                expected = client.post("/embed", json={"inputs": f"{prompt}a cat", "normalize": True}).json()[0]
                assert np.allclose(vector, expected, atol=1e-5), task


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/vectors", {"id": "0"}, "exactly one of image and text"),
        ("/vectors", {"id": "0", "image": PICTURE, "text": "a cat"}, "exactly one of image and text"),
        ("/vectors", {"text": 7}, "text: "),
        ("/vectorize", {}, "texts and images are empty"),
        ("/vectorize", {"texts": "a cat"}, "texts: "),
        ("/vectorize", {"images": [PICTURE] * 1025}, "IEI_MAX_INPUTS"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_other_bad_requests(weaviate: Weaviate, path: str, body: object, words: str) -> None:
    answer = weaviate.post(path, body)
    assert answer.status in (400, 422)
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


def test_weaviates_clients_send_no_key_but_may_ask_for_the_state(keyed_server: Server) -> None:
    with Weaviate(keyed_server.url) as weaviate:
        for path, status in (("/.well-known/ready", 204), ("/.well-known/live", 204), ("/meta", 200)):
            assert weaviate.get(path).status == status
        answer = weaviate.img2vec(PICTURE)
        assert (answer.status, answer.json().keys()) == (401, {"error"})


class TestTheContainersOwnSmokeTests:
    """What they assert. Theirs ask for more than 100 values, too: `clip` is tiny here, and has 24."""

    def test_of_i2v_pytorch_models(self, demo_server: Server) -> None:
        assert httpx.get(f"{demo_server.url}/.well-known/ready").status_code == 204
        response = httpx.post(f"{demo_server.url}/vectors/", json={"id": "test", "image": PICTURE}, timeout=60)
        assert (response.status_code, response.json()["dim"]) == (200, 192)

    def test_of_multi2vec_clip_inference(self, text_server: Server) -> None:
        for path in ("live", "ready"):
            assert httpx.get(f"{text_server.url}/.well-known/{path}").status_code == 204
        meta = httpx.get(f"{text_server.url}/meta")
        assert meta.status_code == 200
        assert isinstance(meta.json(), dict)
        three = ["This is plane", "Boeing 737", "Blue plane"]
        for texts, images in ((three[:1], [PICTURE]), (three, [PICTURE, PICTURE]), (three, []), ([], [OTHER])):
            body = {name: items for name, items in (("texts", texts), ("images", images)) if items}
            response = httpx.post(f"{text_server.url}/vectorize", json=body, timeout=60)
            assert response.status_code == 200
            assert len(response.json()["textVectors"]) == len(texts)
            vectors = response.json()["imageVectors"]
            assert len(vectors) == len(images)
            assert vectors[1:] == vectors[:-1]

    def test_of_t2v_transformers_models(self, text_server: Server) -> None:
        sentences = [f"The London Eye is ferris wheel number {number} at the River Thames." for number in range(30)]
        with httpx.Client(base_url=f"{text_server.url}/m/minilm", timeout=60) as client:

            def length(path: str, text: str, **config: object) -> int:
                response = client.post(path, json={"text": text, **({"config": config} if config else {})})
                assert response.status_code == 200
                return len(response.json()["vector"])

            for path in ("/vectors", "/vectors/"):
                with ThreadPoolExecutor(10) as threads:
                    assert set(threads.map(lambda text, path=path: length(path, text), sentences)) == {384}
            assert length("/vectors/", sentences[0], task_type="passage") == 384
            assert length("/vectors/", sentences[0], task_type="passage", dimensions=256) == 256
            assert length("/vectors", sentences[0], task_type="query", dimensions=128) == 128
