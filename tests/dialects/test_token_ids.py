"""What token ids at `/v1/embeddings` are taken for: nothing, the model's own, or those of one of OpenAI's encodings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from iei.dialects.token_ids import of_model, reader, refused
from iei.engine.inprocess import InProcessEngine
from iei.errors import EmptyInput, InvalidField, InvalidInput, StartupError
from iei.requests import TextInput
from iei.runtimes.api import Model
from tests.apps import app_around, default_model
from tests.checkpoints.text_checkpoints import trained_folder

TEXTS = ["A cat sits on a mat", "Shares fell sharply, 5 €"]


@pytest.fixture
def tiktoken(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, with an encoding of its own that is called `cl100k_base`: OpenAI's would be downloaded.

    Its ids are those of bytes, plus 7.
    """
    package: Any = pytest.importorskip("tiktoken", reason="needs the clients group: uv sync --group clients")
    ranks = {bytes([value]): value + 7 for value in range(256)}
    encoding = package.Encoding("bytes", pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens={})

    def get_encoding(name: str) -> Any:
        if name == "cl100k_base":
            return encoding
        raise ValueError(f"Unknown encoding {name}.")

    monkeypatch.setattr(package, "get_encoding", get_encoding)
    return package


def test_ids_are_refused_or_the_models() -> None:
    assert reader("refuse") is refused
    with pytest.raises(InvalidField, match="check_embedding_ctx_length=False") as found:
        refused([1, 2])
    assert found.value.field == "input"
    assert reader("model") is of_model
    assert of_model([1, 2]) == TextInput((1, 2))


def test_ids_of_an_encoding_become_text(tiktoken: Any) -> None:
    read = reader("cl100k_base")
    for text in TEXTS:
        assert read(tiktoken.get_encoding("cl100k_base").encode(text)) == TextInput(text)
    with pytest.raises(InvalidInput, match="not in cl100k_base"):
        read([100_000])
    with pytest.raises(EmptyInput):
        read([])


def test_an_encoding_that_cant_be_loaded_stops_the_start(tiktoken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the first request: data would be downloaded in there."""
    with pytest.raises(StartupError, match=r"IEI_TOKEN_IDS='none'.*TIKTOKEN_CACHE_DIR"):
        reader("none")
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(StartupError, match="IEI_TOKEN_IDS='cl100k_base' is neither 'refuse' nor 'model'"):
        reader("cl100k_base")


@pytest.fixture(scope="module")
def model() -> Model:
    return default_model(model=str(trained_folder()), model_name="minilm", threads=1)


@contextmanager
def served(model: Model, token_ids: str) -> Iterator[TestClient]:
    settings = {"model": str(trained_folder()), "model_name": "minilm", "threads": 1, "token_ids": token_ids}
    with TestClient(app_around(InProcessEngine(model), **settings)) as client:
        yield client


def vectors(client: TestClient, inputs: object, **fields: Any) -> np.ndarray:
    response = client.post("/v1/embeddings", json={"input": inputs, **fields})
    assert response.status_code == 200, response.text
    return np.array([item["embedding"] for item in response.json()["data"]])


@pytest.mark.server
def test_a_server_that_takes_ids_as_the_models(model: Model) -> None:
    with served(model, "model") as client:
        ids = [[token["id"] for token in text] for text in client.post("/tokenize", json={"inputs": TEXTS}).json()]
        assert np.allclose(vectors(client, ids), vectors(client, TEXTS), atol=1e-5)


@pytest.mark.server
def test_a_server_that_decodes_ids(model: Model, tiktoken: Any) -> None:
    """And what the request says of its ids counts more than the setting."""
    ids = [tiktoken.get_encoding("cl100k_base").encode(text) for text in TEXTS]
    with served(model, "cl100k_base") as client:
        of_texts = vectors(client, TEXTS)
        assert np.allclose(vectors(client, ids), of_texts, atol=1e-5)
        assert np.abs(vectors(client, ids, token_ids="model") - of_texts).max() > 0.01
