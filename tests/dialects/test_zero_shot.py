"""`/classify` and `/rank`, and Hugging Face's own client; compared with transformers' own pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import transformers
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from starlette.testclient import TestClient

from iei.engine.inprocess import InProcessEngine
from iei.runtimes.torch.weights import quiet
from tests.apps import app_around, default_model
from tests.checkpoints.text_checkpoints import set_weights, trained_folder, write_text_checkpoint
from tests.pictures import base64_of, data_uri, encode, jpeg, photo
from tests.servers import Server

LABELS = ["a cat", "two dogs on a red photo", "rocket", "the quick brown fox", "a cat"]
PHOTOS = [photo(224, 224, name) for name in ("chelsea", "coffee", "rocket")]
IMAGES = [base64_of(encode(picture, "PNG")) for picture in PHOTOS]


@dataclass(frozen=True)
class Checkpoint:
    """What tells the families' checkpoints apart."""

    family: str
    weights: dict[str, float]
    """A scale as real ones have it, and a bias with which these random towers give scores that are not all 0 or 1."""
    tokenizer: dict[str, Any]
    model: str


CHECKPOINTS = {
    "clip": Checkpoint("clip", {"logit_scale": 4.6052}, {}, "CLIPModel"),
    "siglip": Checkpoint("siglip", {"logit_scale": 4.7647, "logit_bias": 30.0}, {}, "SiglipModel"),
    # Of the same model_type; its tokenizer pads with a token of its own.
    "siglip2": Checkpoint("siglip", {"logit_scale": 4.7312, "logit_bias": 4.0}, {"pad_token": "<pad>"}, "SiglipModel"),
}


@dataclass(frozen=True)
class Pair:
    """One checkpoint, served and in transformers' pipeline."""

    family: str
    client: TestClient
    pipeline: Any

    def theirs(self, labels: list[str], template: str) -> list[list[dict[str, Any]]]:
        if self.family == "siglip":  # trained on lowercased texts; the tiny tokenizer leaves that to whoever uses it
            labels, template = [label.lower() for label in labels], template.lower()
        results: list[list[dict[str, Any]]] = self.pipeline(
            PHOTOS, candidate_labels=labels, hypothesis_template=template
        )
        return results


@pytest.fixture(scope="module", params=CHECKPOINTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    row = CHECKPOINTS[request.param]
    folder = write_text_checkpoint(row.family, tmp_path_factory.mktemp(request.param), **row.tokenizer)
    set_weights(folder, **row.weights)
    with quiet():
        model = getattr(transformers, row.model).from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if row.family == "siglip":
        tokenizer.model_input_names = ["input_ids"]  # as the real checkpoints have it: padding is not masked
    pipeline = transformers.pipeline(
        "zero-shot-image-classification",
        model=model,
        tokenizer=tokenizer,
        image_processor=transformers.AutoImageProcessor.from_pretrained(folder, backend="pil"),
        device="cpu",
    )
    settings = {"model": str(folder), "model_name": "tiny", "threads": 1}
    with TestClient(app_around(InProcessEngine(default_model(**settings)), **settings)) as client:
        yield Pair(row.family, client, pipeline)


@pytest.mark.server
class TestEqualsTransformers:
    def test_scores_of_labels(self, pair: Pair) -> None:
        parameters = {"candidate_labels": LABELS}
        ours = pair.client.post("/classify", json={"inputs": IMAGES, "parameters": parameters}).json()
        _assert_equal(ours, pair.theirs(LABELS, "This is a photo of {}."))
        assert abs(ours[0][0]["score"] - ours[1][0]["score"]) > 1e-3, "pictures differ"

    def test_scores_with_a_template(self, pair: Pair) -> None:
        parameters = {"candidate_labels": LABELS, "hypothesis_template": "Look: {} !"}
        ours = pair.client.post("/classify", json={"inputs": IMAGES, "parameters": parameters}).json()
        _assert_equal(ours, pair.theirs(LABELS, "Look: {} !"))

    def test_one_label(self, pair: Pair) -> None:
        ours = pair.client.post("/classify", json={"inputs": IMAGES, "parameters": {"candidate_labels": ["a fox"]}})
        _assert_equal(ours.json(), pair.theirs(["a fox"], "This is a photo of {}."))

    def test_scores_add_up_to_one_where_the_training_had_a_softmax(self, pair: Pair) -> None:
        body = {"inputs": IMAGES[0], "parameters": {"candidate_labels": LABELS}}
        total = sum(label["score"] for label in pair.client.post("/classify", json=body).json())
        assert (abs(total - 1) <= 1e-5) == (pair.family == "clip")

    @pytest.mark.parametrize("modality", ["image", "text"])
    def test_raw_scores_are_logits(self, pair: Pair, modality: str) -> None:
        """Of a picture against texts, and of a text against pictures."""
        texts = [label.lower() for label in LABELS]
        tokens = pair.pipeline.tokenizer(texts, return_tensors="pt", padding="max_length", max_length=64)
        if pair.family == "clip":
            tokens = pair.pipeline.tokenizer(texts, return_tensors="pt", padding=True)
        pixels = pair.pipeline.image_processor(PHOTOS, return_tensors="pt")
        logits = pair.pipeline.model(**tokens, **pixels).logits_per_image.detach().numpy()
        ask = (
            {"query": IMAGES[1], "candidates": texts, "query_modality": "image"}
            if modality == "image"
            else {"query": texts[1], "candidates": IMAGES, "candidates_modality": "image"}
        )
        ranks = pair.client.post("/rank", json={**ask, "raw_scores": True}).json()
        expected = logits[1] if modality == "image" else logits[:, 1]
        scores = {rank["index"]: rank["score"] for rank in ranks}
        assert np.abs([scores[index] - score for index, score in enumerate(expected)]).max() <= 1e-4
        assert [rank["score"] for rank in ranks] == sorted(scores.values(), reverse=True)

    def test_another_default_pooling_changes_nothing(self, pair: Pair) -> None:
        settings = {"model": pair.pipeline.model.name_or_path, "threads": 1, "pooling": "mean"}
        app = app_around(InProcessEngine(default_model(**settings)), **settings)
        body = {"inputs": IMAGES, "parameters": {"candidate_labels": LABELS}}
        with TestClient(app) as client:
            _assert_equal(client.post("/classify", json=body).json(), pair.client.post("/classify", json=body).json())


def _assert_equal(ours: list[list[dict[str, Any]]], theirs: list[list[dict[str, Any]]]) -> None:
    assert len(ours) == len(theirs) == len(IMAGES)
    for our_row, their_row in zip(ours, theirs, strict=True):
        scores = [label["score"] for label in our_row]
        assert scores == sorted(scores, reverse=True)
        assert sorted(label["label"].lower() for label in our_row) == sorted(label["label"] for label in their_row)
        by_label = {label["label"]: label["score"] for label in their_row}
        for label in our_row:
            assert abs(label["score"] - by_label[label["label"].lower()]) <= 1e-4


def _scores(answer: list[dict[str, Any]]) -> dict[str, float]:
    return {label["label"]: label["score"] for label in answer}


def _nearly(answer: list[dict[str, Any]]) -> Any:
    """Equal to the same scores from another batch, which rounds otherwise."""
    return pytest.approx(_scores(answer), abs=1e-4)


def post(server: Server, path: str, body: object) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=60)


def embedded(server: Server, inputs: list[str]) -> np.ndarray:
    vectors = post(server, "/embed", {"inputs": inputs, "normalize": True}).json()
    return np.array(vectors)


class TestHuggingFaceClient:
    @pytest.mark.parametrize("path", ["", "/", "/classify", "/invocations"])
    @pytest.mark.parametrize("argument", ["model", "base_url"])
    def test_classifies(self, text_server: Server, path: str, argument: str) -> None:
        address: dict[str, Any] = {argument: text_server.url + path}
        client = InferenceClient(**address)
        found = client.zero_shot_image_classification(jpeg(), ["a cat", "a rocket"], hypothesis_template="a {}!")
        vectors = embedded(text_server, [data_uri(jpeg()), "a a cat!", "a a rocket!"])
        weights = np.exp(np.exp(2.6592) * (vectors[1:] @ vectors[0]))
        expected = dict(zip(["a cat", "a rocket"], weights / weights.sum(), strict=True))
        assert [label.score for label in found] == sorted((label.score for label in found), reverse=True)
        assert {label.label: label.score for label in found} == pytest.approx(expected, abs=1e-4)

    def test_gets_our_message(self, text_server: Server) -> None:
        client = InferenceClient(model=text_server.url)
        with pytest.raises(HfHubHTTPError, match="is not an image") as caught:
            client.zero_shot_image_classification(b"no picture", ["a cat", "a rocket"])
        assert caught.value.response.status_code == 400

    def test_gets_the_errors_of_keys(self, keyed_server: Server) -> None:
        def ask(token: str) -> Any:
            client = InferenceClient(model=keyed_server.url, token=token)
            return client.zero_shot_image_classification(jpeg(), ["a cat", "a rocket"])

        assert {label.label for label in ask("secret")} == {"a cat", "a rocket"}
        with pytest.raises(HfHubHTTPError) as unknown:
            ask("wrong")
        assert unknown.value.response.status_code == 401
        with pytest.raises(HfHubHTTPError, match="your API key may send 1 in one request") as limited:
            ask("slow")
        assert limited.value.response.status_code == 422

    def test_still_embeds_at_the_same_address(self, text_server: Server) -> None:
        vector = InferenceClient(model=text_server.url).feature_extraction("a cat", normalize=True)
        assert np.allclose(vector, embedded(text_server, ["a cat"]), atol=1e-5)


class TestClassify:
    def test_labels_in_one_string(self, text_server: Server) -> None:
        answers = [
            post(text_server, "/classify", {"inputs": IMAGES[0], "parameters": {"candidate_labels": labels}}).json()
            for labels in ("a cat, rocket,, the fox ", ["a cat", "rocket", "the fox"])
        ]
        assert _scores(answers[0]) == _nearly(answers[1])
        assert len(answers[0]) == 3

    def test_a_list_of_one_gives_a_list(self, text_server: Server) -> None:
        parameters = {"candidate_labels": LABELS}
        one = post(text_server, "/classify", {"inputs": IMAGES[0], "parameters": parameters}).json()
        several = post(text_server, "/classify", {"inputs": IMAGES[:1], "parameters": parameters}).json()
        assert _scores(several[0]) == _nearly(one)

    def test_null_is_the_default_template(self, text_server: Server) -> None:
        answers = [
            post(text_server, "/classify", {"inputs": IMAGES[0], "parameters": {"candidate_labels": LABELS, **more}})
            for more in ({}, {"hypothesis_template": None}, {"hypothesis_template": "This is a photo of {}."})
        ]
        for answer in answers[1:]:
            assert _scores(answer.json()) == _nearly(answers[0].json())
        assert float(answers[0].headers["x-inference-time"]) > 0

    @pytest.mark.parametrize(
        ("body", "status", "words"),
        [
            ({"parameters": {"candidate_labels": ["a"]}}, 422, "inputs: "),
            ({"inputs": "x"}, 422, "parameters: Field required"),
            ({"inputs": "x", "parameters": {}}, 422, "parameters.candidate_labels: name at least one"),
            ({"inputs": "x", "parameters": {"candidate_labels": []}}, 422, "name at least one"),
            ({"inputs": "x", "parameters": {"candidate_labels": " , "}}, 422, "name at least one"),
            ({"inputs": "x", "parameters": {"candidate_labels": 7}}, 422, "must be a list of strings, or one string"),
            (
                {"inputs": "x", "parameters": {"candidate_labels": ["a", 7]}},
                422,
                "parameters.candidate_labels[1]: Input should be a valid string",
            ),
            (
                {"inputs": "x", "parameters": {"candidate_labels": ["a"], "hypothesis_template": "a photo"}},
                422,
                "parameters.hypothesis_template: must have {} once",
            ),
            (
                {"inputs": "x", "parameters": {"candidate_labels": ["a"], "hypothesis_template": "{}" + "a" * 1000}},
                422,
                "at most 1000 characters",
            ),
            ({"inputs": [], "parameters": {"candidate_labels": ["a"]}}, 400, "inputs is empty"),
            ({"inputs": "%", "parameters": {"candidate_labels": ["a"]}}, 400, "inputs: is not base64"),
            ({"inputs": [IMAGES[0], "%"], "parameters": {"candidate_labels": ["a"]}}, 400, "inputs[1]: is not base64"),
            (
                {"inputs": IMAGES[0], "parameters": {"candidate_labels": ["a", "a " * 99]}},
                400,
                "parameters.candidate_labels[1]: has",
            ),
            ({"inputs": [IMAGES[0]], "parameters": {"candidate_labels": ["a"] * 1024}}, 422, "IEI_MAX_INPUTS"),
            (
                {"inputs": IMAGES[0], "parameters": {"candidate_labels": ["a"]}, "model": "minilm"},
                422,
                "'minilm' does not score images against texts: that takes a checkpoint with a side for each",
            ),
            ({"inputs": "x", "parameters": {"candidate_labels": ["a"]}, "model": "none"}, 404, "'none' is not served"),
        ],
        ids=lambda value: str(value)[:60],
    )
    def test_errors(self, text_server: Server, body: object, status: int, words: str) -> None:
        response = post(text_server, "/classify", body)
        assert response.status_code == status, response.text
        assert set(response.json()) == {"error", "error_type", "detail"}
        assert words in response.json()["error"]

    def test_a_long_label_can_be_cut(self, text_server: Server) -> None:
        parameters = {"candidate_labels": ["a " * 99, "b"], "truncate": True}
        assert len(post(text_server, "/classify", {"inputs": IMAGES[0], "parameters": parameters}).json()) == 2

    def test_a_model_of_pictures_says_what_is_needed(self, demo_server: Server) -> None:
        body = {"inputs": IMAGES[0], "parameters": {"candidate_labels": ["a"]}}
        for path in ("/classify", "/"):
            response = post(demo_server, path, body)
            assert response.status_code == 422
            assert "CLIP or SigLIP" in response.json()["error"]


class TestRank:
    def test_cosines_of_a_text_and_a_mixture(self, text_server: Server) -> None:
        candidates = [data_uri(jpeg()), "a cat", "a dog and a fox"]
        ranks = post(text_server, "/rank", {"query": "a cat", "candidates": candidates}).json()
        query, *others = embedded(text_server, ["a cat", *candidates])
        assert [rank["index"] for rank in ranks] == list(np.argsort(-(np.array(others) @ query)))
        assert {rank["index"]: rank["score"] for rank in ranks} == pytest.approx(
            dict(enumerate(np.array(others) @ query)), abs=1e-5
        )
        assert ranks[0]["index"] == 1

    def test_texts_as_text_embeddings_inference_calls_them(self, text_server: Server) -> None:
        texts = ["The stock market fell.", "A kitten plays.", "Cats are pets."]
        body = {"query": "a cat", "texts": texts, "raw_scores": False, "return_text": True, "model": "minilm"}
        ranks = post(text_server, "/rank", body).json()
        assert [rank["index"] for rank in ranks][-1] == 0
        assert [rank["text"] for rank in ranks] == [texts[rank["index"]] for rank in ranks]

    def test_equal_candidates_keep_their_order(self, text_server: Server) -> None:
        ranks = post(text_server, "/rank", {"query": "a cat", "candidates": ["a fox", "a fox", "a fox"]}).json()
        assert [rank["index"] for rank in ranks] == [0, 1, 2]

    def test_pictures_by_a_picture_on_a_model_of_pictures(self, demo_server: Server) -> None:
        ranks = post(demo_server, "/rank", {"query": IMAGES[1], "candidates": IMAGES}).json()
        assert ranks[0] == {"index": 1, "score": pytest.approx(1, abs=1e-5)}

    @pytest.mark.parametrize(
        ("body", "status", "words"),
        [
            ({"candidates": ["a"]}, 422, "query: Field required"),
            ({"query": "a"}, 422, "candidates: Field required"),
            ({"query": "a", "candidates": "b"}, 422, "candidates: "),
            ({"query": "a", "candidates": []}, 400, "candidates is empty"),
            ({"query": "", "candidates": ["a"]}, 400, "query: is empty"),
            ({"query": "a", "candidates": ["a", ""]}, 400, "candidates[1]: is empty"),
            ({"query": "a", "candidates": ["%"], "candidates_modality": "image"}, 400, "candidates[0]: is not base64"),
            ({"query": "a", "candidates": ["b"], "raw_scores": True}, 422, "images against texts, and nothing else"),
            ({"query": "a", "candidates": ["b"], "raw_scores": True, "model": "minilm"}, 422, "CLIP or SigLIP"),
            ({"query": "a", "candidates": [data_uri(jpeg())], "model": "minilm"}, 422, "takes no images"),
            ({"query": "a", "candidates": ["b"] * 1024}, 422, "IEI_MAX_INPUTS"),
        ],
        ids=lambda value: str(value)[:60],
    )
    def test_errors(self, text_server: Server, body: object, status: int, words: str) -> None:
        response = post(text_server, "/rank", body)
        assert response.status_code == status, response.text
        assert set(response.json()) == {"error", "error_type", "detail"}
        assert words in response.json()["error"]


def test_trained_weights_know_what_is_alike(tmp_path: Path) -> None:
    """MiniLM, whose weights are trained: the server's order is that of meaning."""
    settings = {"model": str(trained_folder()), "threads": 1}
    with TestClient(app_around(InProcessEngine(default_model(**settings)), **settings)) as client:
        body = {"query": "Somebody has a meal.", "texts": ["Share prices fell.", "A man is eating food."]}
        assert [rank["index"] for rank in client.post("/rank", json=body).json()] == [1, 0]
