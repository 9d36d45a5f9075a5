"""What a request says its texts are for, and the prompt that the model puts before them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from starlette.testclient import TestClient

from iei.dialects.prompts import prompts_for
from iei.engine.inprocess import InProcessEngine
from tests.apps import app_around, default_model
from tests.checkpoints.text_checkpoints import trained_folder


@pytest.mark.parametrize(
    ("input_type", "names"),
    [
        (None, ()),
        ("", ()),
        ("search_query", ("search_query", "query", "retrieval.query")),
        ("document", ("document", "passage", "corpus", "search_document", "retrieval.passage")),
        ("clustering", ("clustering",)),
    ],
)
def test_names_of_prompts(input_type: str | None, names: tuple[str, ...]) -> None:
    assert prompts_for(input_type) == names


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Of a model with prompts for queries, for passages and for `clustering`."""
    folder = tmp_path_factory.mktemp("prompted")
    for file in trained_folder().iterdir():
        (folder / file.name).symlink_to(file)
    prompts = {name: f"{name}: " for name in ("query", "passage", "clustering")}
    (folder / "config_sentence_transformers.json").unlink(missing_ok=True)
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    settings = {"model": str(folder), "model_name": "prompted", "threads": 1}
    with TestClient(app_around(InProcessEngine(default_model(**settings)), **settings)) as client:
        yield client


@pytest.mark.server
@pytest.mark.parametrize(
    ("input_type", "prompt_name"),
    [
        ("search_query", "query"),
        ("query", "query"),
        ("search_document", "passage"),
        ("document", "passage"),
        ("clustering", "clustering"),
        ("classification", None),
        (None, None),
    ],
)
def test_the_model_gets_the_prompt_that_suits(
    client: TestClient, input_type: str | None, prompt_name: str | None
) -> None:
    text = "the cat"
    body = {"inputs": text, "normalize": True, **({"prompt_name": prompt_name} if prompt_name else {})}
    expected = client.post("/embed", json=body).json()
    cohere = client.post("/v2/embed", json={"texts": [text], "input_type": input_type}).json()
    inputs = [{"content": [{"type": "text", "text": text}]}]
    voyage = client.post("/v1/multimodalembeddings", json={"inputs": inputs, "input_type": input_type}).json()
    np.testing.assert_allclose(cohere["embeddings"]["float"], expected, atol=1e-5)
    np.testing.assert_allclose([voyage["data"][0]["embedding"]], expected, atol=1e-5)
