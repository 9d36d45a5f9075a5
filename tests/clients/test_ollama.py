"""Ollama's own clients, and those of others that call it, against a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest

from tests.pictures import data_uri, jpeg
from tests.servers import Server

TEXTS = ["a cat", "a cup of coffee"]
NEEDED = "needs the clients group: uv sync --group clients"


@pytest.fixture
def wanted(text_server: Server) -> np.ndarray:
    """What `/embed` answers, normalised."""
    answer = httpx.post(f"{text_server.url}/embed", json={"inputs": TEXTS, "normalize": True}, timeout=60)
    return np.array(answer.json())


@pytest.fixture(scope="module")
def ollama() -> Any:
    return pytest.importorskip("ollama", reason=NEEDED)


def test_ollamas_client(ollama: Any, text_server: Server, wanted: np.ndarray) -> None:
    client = ollama.Client(host=text_server.url)
    answer = client.embed("clip", TEXTS)
    assert np.allclose(answer.embeddings, wanted, atol=1e-5)
    assert answer.prompt_eval_count > 0
    assert 0 < answer.load_duration < answer.total_duration
    assert np.allclose(client.embed("clip:latest", TEXTS[0], truncate=True).embeddings, wanted[:1], atol=1e-5)
    assert np.shape(client.embed("clip", TEXTS, dimensions=8).embeddings) == (2, 8)
    assert client.embed("clip").embeddings == []
    assert np.allclose(client.embeddings("clip", TEXTS[0]).embedding, wanted[0], atol=1e-5)


def test_ollamas_asynchronous_client(ollama: Any, text_server: Server, wanted: np.ndarray) -> None:
    async def embed() -> Any:
        return await ollama.AsyncClient(host=text_server.url).embed("clip", TEXTS)

    assert np.allclose(asyncio.run(embed()).embeddings, wanted, atol=1e-5)


def test_pictures_as_data_uris(ollama: Any, text_server: Server) -> None:
    uri = data_uri(jpeg())
    body = {"inputs": uri, "normalize": True}
    picture = httpx.post(f"{text_server.url}/embed", json=body, timeout=60).json()
    found = ollama.Client(host=text_server.url).embed("clip", uri).embeddings
    assert np.allclose(found, picture, atol=1e-5)


def test_models_are_listed_and_shown(ollama: Any, text_server: Server) -> None:
    client = ollama.Client(host=text_server.url)
    first, second = client.list().models
    assert (first.model, second.model) == ("clip:latest", "minilm:latest")
    assert first.details.family == "clip"
    shown = client.show(second.model)
    assert shown.modelinfo[f"{shown.modelinfo['general.architecture']}.embedding_length"] == 384
    assert shown.capabilities == ["embedding"]


def test_errors_are_ollamas_exception(ollama: Any, text_server: Server) -> None:
    client = ollama.Client(host=text_server.url)
    for status, words, fields in (
        (404, "model 'none' not found", {"model": "none", "input": "a cat"}),
        (400, "input[1]: is not an image", {"model": "clip", "input": ["a", "data:image/png;base64,AAAA"]}),
        (400, "tokens", {"model": "clip", "input": "word " * 500, "truncate": False}),
    ):
        with pytest.raises(ollama.ResponseError) as raised:
            client.embed(**fields)
        assert raised.value.status_code == status
        assert words in raised.value.error


def test_langchain(text_server: Server, wanted: np.ndarray) -> None:
    langchain = pytest.importorskip("langchain_ollama", reason=NEEDED)
    embeddings = langchain.OllamaEmbeddings(
        model="clip", base_url=text_server.url, validate_model_on_init=True, num_ctx=77, keep_alive=60
    )
    assert np.allclose(embeddings.embed_documents(TEXTS), wanted, atol=1e-5)
    assert np.allclose(embeddings.embed_query(TEXTS[0]), wanted[0], atol=1e-5)
    assert np.allclose(asyncio.run(embeddings.aembed_documents(TEXTS)), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="`none` not found in Ollama"):
        langchain.OllamaEmbeddings(model="none", base_url=text_server.url, validate_model_on_init=True)


def test_chroma(text_server: Server, wanted: np.ndarray) -> None:
    functions = pytest.importorskip("chromadb.utils.embedding_functions", reason=NEEDED)
    for url in (text_server.url, f"{text_server.url}/api/embeddings"):
        function = functions.OllamaEmbeddingFunction(url=url, model_name="clip")
        assert np.allclose(function(TEXTS), wanted, atol=1e-5)


def test_litellm(text_server: Server, wanted: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or its import asks the internet for prices
    litellm = pytest.importorskip("litellm", reason=NEEDED)
    answer = litellm.embedding("ollama/clip", input=TEXTS, api_base=text_server.url)
    assert np.allclose([item["embedding"] for item in answer.data], wanted, atol=1e-5)
    assert answer.usage.prompt_tokens > 0
    short = litellm.embedding("ollama/clip", input=TEXTS, api_base=text_server.url, dimensions=8)
    assert np.shape([item["embedding"] for item in short.data]) == (2, 8)
    with pytest.raises(litellm.NotFoundError, match="model 'none' not found"):
        litellm.embedding("ollama/none", input=TEXTS, api_base=text_server.url)


def test_keys_and_their_limits(ollama: Any, keyed_server: Server) -> None:
    def client(**headers: str) -> Any:
        return ollama.Client(host=keyed_server.url, headers=headers)

    assert np.shape(client(authorization="Bearer secret").embed("clip", TEXTS).embeddings)[0] == 2
    with pytest.raises(ollama.ResponseError, match="needs an API key") as refused:
        client().embed("clip", TEXTS)
    assert refused.value.status_code == 401
    statuses = []
    for _ in range(2):
        try:
            client(authorization="Bearer slow").embed("clip", TEXTS[0])
        except ollama.ResponseError as error:
            statuses.append(error.status_code)
    assert statuses[-1:] == [429]


def test_the_python_client_can_not_hold_null(ollama: Any, text_server: Server) -> None:
    """docs/api/README.md says so: whoever sets the header has to know."""
    client = ollama.Client(host=text_server.url, headers={"X-IEI-On-Error": "null"})
    assert len(client.embed("clip", TEXTS).embeddings) == len(TEXTS)
    with pytest.raises(ValueError, match="embeddings"):
        client.embed("clip", ["a cat", "data:image/png;base64,AAAA"])
