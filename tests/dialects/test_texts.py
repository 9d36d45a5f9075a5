"""Texts, and texts beside pictures, through `/embed`: the whole app, over an engine in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from iei.engine.inprocess import InProcessEngine
from iei.inputs.geometry import to_pixels
from iei.inputs.tokens import encode
from tests.apps import app_around, default_model
from tests.checkpoints.text_checkpoints import TWO_TOWER_FAMILIES, trained_folder, write_text_checkpoint
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.pictures import base64_of, data_uri, photo, png

pytestmark = pytest.mark.server

SENTENCES = [
    "A man is eating food.",
    "The stock market fell sharply today.",
    "Somebody has a meal.",
    "Share prices dropped this morning.",
]
LONG = "word " * 300


class App:
    def __init__(self, folder: Path, **options: Any) -> None:
        settings = {"model": str(folder), "model_name": "tiny", "threads": 1, **options}
        self.runtime = default_model(**settings)
        self.client = TestClient(app_around(InProcessEngine(self.runtime), **settings))

    def embed(self, inputs: str | list[str], path: str = "/embed", **fields: Any) -> NDArray[np.float32]:
        response = self.client.post(path, json={"inputs": inputs, **fields})
        assert response.status_code == 200, response.text
        return np.array(response.json(), np.float32)

    def refusal(self, inputs: str | list[str], **fields: Any) -> tuple[int, str, str]:
        response = self.client.post("/embed", json={"inputs": inputs, **fields})
        return response.status_code, response.json()["error_type"], response.json()["error"]


def _served(folder: Path) -> Iterator[App]:
    app = App(folder)
    with app.client:
        yield app


@pytest.fixture(scope="module")
def minilm() -> Iterator[App]:
    yield from _served(trained_folder())


@pytest.fixture(scope="module", params=TWO_TOWER_FAMILIES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    yield from _served(write_text_checkpoint(request.param, tmp_path_factory.mktemp(request.param)))


class TestTexts:
    def test_one_vector_each_in_order_and_of_length_one(self, minilm: App) -> None:
        vectors = minilm.embed(SENTENCES)
        assert vectors.shape == (4, 384)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5), "as the model's own pipeline has it"
        for sentence, vector in zip(SENTENCES, vectors, strict=True):
            assert np.allclose(minilm.embed(sentence), vector, atol=1e-5)

    def test_what_means_the_same_is_near(self, minilm: App) -> None:
        vectors = minilm.embed(SENTENCES)
        similarity = vectors @ vectors.T - 2 * np.eye(4)
        assert similarity.argmax(1).tolist() == [2, 3, 0, 1]

    def test_many_lengths_at_once_are_the_same_as_one_by_one(self, minilm: App) -> None:
        texts = ["fox " * (7 * number % 100 + 1) for number in range(60)]
        vectors = minilm.embed(texts)
        for number in (0, 1, 17, 59):
            assert np.allclose(minilm.embed(texts[number]), vectors[number], atol=1e-5)

    def test_other_poolings_on_request(self, minilm: App) -> None:
        tokens = minilm.embed(SENTENCES[0], "/embed_all", normalize=False)[0]
        assert tokens.shape == (8, 384)
        expected = {"mean": tokens.mean(0), "cls": tokens[0], "last": tokens[-1], "max": tokens.max(0)}
        for pooling, vector in expected.items():
            assert np.allclose(minilm.embed(SENTENCES[0], pooling=pooling, normalize=False)[0], vector, atol=1e-5)

    def test_rows_of_tokens_are_normalised_only_for_those_who_ask(self, minilm: App) -> None:
        raw = minilm.embed(SENTENCES[0], "/embed_all")[0]
        assert np.linalg.norm(raw, axis=1).min() > 2
        asked = minilm.embed(SENTENCES[0], "/embed_all", normalize=True)[0]
        assert np.allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-5)

    def test_a_server_that_is_told_not_to_normalise_does_not(self, minilm: App) -> None:
        (raw,) = minilm.embed(SENTENCES[0], normalize=False)
        told = App(trained_folder(), normalize=False)
        with told.client:
            assert np.allclose(told.embed(SENTENCES[0])[0], raw, atol=1e-5)
            assert np.linalg.norm(told.embed(SENTENCES[0], normalize=True)[0]) == pytest.approx(1, abs=1e-5)

    def test_a_text_of_absurd_length_is_not_tokenized(self, minilm: App, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("iei.inputs.preparer.encode", lambda *_, **__: pytest.fail("it was tokenized"))
        status, _, message = minilm.refusal(["a" * 1_000_001], truncate=True)
        assert (status, "IEI_MAX_TEXT_LENGTH" in message) == (400, True)
        response = minilm.client.post("/tokenize", json={"inputs": "a" * 1_000_001})
        assert (response.status_code, "IEI_MAX_TEXT_LENGTH" in response.text) == (400, True)

    def test_a_picture_is_no_text(self, minilm: App) -> None:
        status, _, message = minilm.refusal([data_uri(png(8, 8))], truncate=True)
        assert (status, message) == (422, "model 'tiny' takes no images")

    def test_a_picture_in_plain_base64_is_no_text_either(self, minilm: App) -> None:
        status, _, message = minilm.refusal([SENTENCES[0], base64_of(png(8, 8))], truncate=True)
        assert status == 400
        assert message == "inputs[1]: is a picture (PNG, in base64), and the model 'tiny' takes texts only"

    def test_dimensions_are_cut_before_they_are_normalised(self, minilm: App) -> None:
        (vector,) = minilm.embed(SENTENCES[0], dimensions=100)
        (whole,) = minilm.embed(SENTENCES[0], normalize=False)
        assert np.allclose(vector, whole[:100] / np.linalg.norm(whole[:100]), atol=1e-5)

    def test_what_is_too_long_is_refused_or_cut_on_request(self, minilm: App) -> None:
        status, kind, message = minilm.refusal([SENTENCES[0], LONG])
        assert (status, kind) == (400, "Validation")
        assert message.startswith("inputs[1]: has 302 tokens, over the model's limit of 256")
        text = "fox " * 300 + "cat"
        right, left = (
            minilm.embed(text, truncate=True)[0],
            minilm.embed(text, truncate=True, truncation_direction="Left")[0],
        )
        assert np.allclose(right, minilm.embed("fox " * 254)[0], atol=1e-5)
        assert np.allclose(left, minilm.embed("fox " * 253 + "cat")[0], atol=1e-5)

    def test_all_bad_items_are_named(self, minilm: App) -> None:
        status, kind, message = minilm.refusal(["", SENTENCES[0], LONG])
        assert (status, kind) == (400, "Validation")
        assert "inputs[0]: is empty; inputs[2]: has 302 tokens" in message
        assert minilm.refusal("")[:2] == (400, "Empty")

    def test_there_is_no_prompt_where_the_model_has_none(self, minilm: App) -> None:
        status, _, message = minilm.refusal(SENTENCES, prompt_name="query")
        assert status == 422
        assert "this model has no prompt 'query'; it has none" in message

    def test_pictures_are_refused_if_said_to_be_some(self, minilm: App) -> None:
        status, _, message = minilm.refusal(base64_of(png()), modality="image")
        assert status == 422
        assert "takes no images" in message


class TestTextsAndPictures:
    def test_texts_and_pictures_in_one_request_and_one_space(self, both: App) -> None:
        image, text = both.runtime.spec.image, both.runtime.spec.text
        assert image is not None
        assert text is not None
        items = [
            "a photo of a cat",
            data_uri(png(), "image/png"),
            "two dogs",
            data_uri(png(name="rocket"), "image/png"),
        ]
        vectors = both.embed(items)
        texts = both.runtime.run("text", [encode(items[index], text) for index in (0, 2)], ["pooler"])
        pixels = [to_pixels(photo(64, 48, name), image.geometry) for name in ("chelsea", "rocket")]
        pictures = both.runtime.run("image", pixels, ["pooler"])
        expected = [texts[0], pictures[0], texts[1], pictures[1]]
        assert np.allclose(vectors, [row["pooler"] for row in expected], atol=1e-4)

    def test_bare_base64_is_a_picture_if_said_to_be_one(self, both: App) -> None:
        picture = png()
        asked = both.embed([base64_of(picture)], modality="image")
        assert np.allclose(asked, both.embed([data_uri(picture, "image/png")]), atol=1e-5)
        assert not np.allclose(asked, both.embed(["cats"]), atol=1e-2)
        status, kind, message = both.refusal(["cats", base64_of(picture)])
        assert (status, kind) == (400, "Validation")
        assert message.startswith("inputs[1]: is a picture (PNG) in plain base64")
        assert "data URI (data:image/png;base64,…), or with `modality: image`" in message

    def test_bad_items_of_both_kinds_are_named(self, both: App) -> None:
        status, _, message = both.refusal(["a cat", "word " * 100, "data:image/png;base64,AAAA", ""])
        assert status == 400
        assert [f"inputs[{index}]" in message for index in range(4)] == [False, True, True, True]

    def test_a_url_is_a_text_with_a_warning(self, both: App) -> None:
        def warning(**fields: Any) -> str | None:
            response = both.client.post("/embed", json={"inputs": ["https://cats.example/1.png"], **fields})
            assert response.status_code == 200, response.text
            return response.headers.get("x-iei-warning")

        assert "URLs were embedded as texts (1): send `modality: image`" in (warning() or "")
        assert warning(modality="text") is None

    def test_vectors_are_not_normalised_by_themselves(self, both: App) -> None:
        items = ["a photo of a cat", data_uri(png(), "image/png")]
        plain, normalized = both.embed(items), both.embed(items, normalize=True)
        assert np.allclose(plain / np.linalg.norm(plain, axis=1, keepdims=True), normalized, atol=1e-5)
        assert not np.allclose(plain, normalized, atol=1e-2)

    def test_outputs_that_only_one_side_has(self, both: App) -> None:
        assert both.embed(data_uri(png(), "image/png"), pooling="patch_mean").shape == (1, 32)
        status, _, message = both.refusal(["a cat", data_uri(png(), "image/png")], pooling="patch_mean")
        assert status == 422
        assert "'patch_mean' is not offered" in message


def test_info_says_what_a_model_takes(minilm: App, both: App) -> None:
    texts, towers = (app.client.get("/info").json() for app in (minilm, both))
    assert (texts["modalities"], texts["dim"], texts["max_input_length"]) == (["text"], 384, 256)
    assert towers["modalities"] == ["image", "text"]
    assert towers["dim"] == both.embed("a cat").shape[1]
    assert texts["normalize"] == {"text": True}
    assert towers["normalize"] == {"image": False, "text": False}


def test_info_tells_a_models_id_and_no_path(minilm: App) -> None:
    info = minilm.client.get("/info").json()
    assert (info["model_id"], info["model_name"]) == (Path(minilm.runtime.spec.id).name, "tiny")
    assert "/" not in info["model_id"]


def test_without_a_tokenizer_it_takes_pictures_only(tmp_path: Path) -> None:
    for app in _served(write_checkpoint("clip", tmp_path)):
        assert app.embed(base64_of(png())).shape == (1, 32)
        status, _, message = app.refusal("a cat", modality="text")
        assert status == 422
        assert "takes no texts" in message
