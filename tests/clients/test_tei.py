"""Clients of text-embeddings-inference and of Hugging Face's Inference API."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from tests.servers import Server

TEXTS = ["a cat on a mat", "stocks fell"]
NEEDS = "needs the clients group: uv sync --group clients"


def expected(server: Server, texts: list[str] = TEXTS, model: str = "clip") -> list[list[float]]:
    vectors: list[list[float]] = httpx.post(f"{server.url}/m/{model}/embed", json={"inputs": texts}).json()
    return vectors


def test_chroma(text_server: Server) -> None:
    functions: Any = pytest.importorskip("chromadb.utils.embedding_functions", reason=NEEDS)
    embed = functions.HuggingFaceEmbeddingServer(url=f"{text_server.url}/m/minilm/embed")
    np.testing.assert_allclose(embed(TEXTS), expected(text_server, model="minilm"), atol=1e-6)
    with pytest.raises(ValueError, match="error"):  # it looks at no status: all that it can show is a key of the answer
        embed(["cat " * 1000])


def test_llama_index(text_server: Server) -> None:
    package: Any = pytest.importorskip("llama_index.embeddings.text_embeddings_inference", reason=NEEDS)
    embed = package.TextEmbeddingsInference(model_name="minilm", base_url=f"{text_server.url}/m/minilm")
    np.testing.assert_allclose(embed.get_text_embedding_batch(TEXTS), expected(text_server, model="minilm"), atol=1e-6)
    assert embed.get_query_embedding(TEXTS[0]) == embed.get_text_embedding(TEXTS[0])
    long = embed.get_text_embedding("cat " * 1000)  # it asks for truncation unless told otherwise
    assert len(long) == 384
    with pytest.raises(KeyError):  # it looks at no status either, and takes the answer for a list
        package.TextEmbeddingsInference(
            model_name="minilm", base_url=text_server.url, truncate_text=False
        ).get_text_embedding("cat " * 1000)


@pytest.mark.parametrize("task", ["feature-extraction", "embed"])
def test_litellm_as_hugging_face(text_server: Server, task: str) -> None:
    litellm: Any = pytest.importorskip("litellm", reason=NEEDS)
    answer = litellm.embedding(
        model="huggingface/any/name", api_base=f"{text_server.url}/m/minilm/embed", input=TEXTS, input_type=task
    )
    vectors = [item["embedding"] for item in answer.data]
    np.testing.assert_allclose(vectors, expected(text_server, model="minilm"), atol=1e-6)


def test_litellm_as_hugging_face_with_sentences_to_compare(text_server: Server) -> None:
    litellm: Any = pytest.importorskip("litellm", reason=NEEDS)
    answer = litellm.embedding(
        model="huggingface/sentence-transformers/any",
        api_base=f"{text_server.url}/m/minilm/",
        input=["a kitten", *TEXTS],
        input_type="sentence-similarity",
    )
    kitten, *others = np.array(expected(text_server, ["a kitten", *TEXTS], "minilm"))
    np.testing.assert_allclose([item["embedding"] for item in answer.data], np.array(others) @ kitten, atol=1e-5)


def test_litellm_shows_the_error(text_server: Server) -> None:
    litellm: Any = pytest.importorskip("litellm", reason=NEEDS)
    with pytest.raises(litellm.exceptions.BadRequestError, match="over the model's limit"):
        litellm.embedding(
            model="huggingface/any/name", api_base=f"{text_server.url}/embed", input=["cat " * 1000], input_type="embed"
        )


def test_litellm_as_triton(text_server: Server) -> None:
    litellm: Any = pytest.importorskip("litellm", reason=NEEDS)
    answer = litellm.embedding(model="triton/minilm", api_base=f"{text_server.url}/v2/models/minilm/infer", input=TEXTS)
    vectors = [item["embedding"] for item in answer.data]
    np.testing.assert_allclose(vectors, expected(text_server, model="minilm"), atol=1e-6)
    with pytest.raises(litellm.exceptions.BadRequestError, match="over the model's limit"):
        litellm.embedding(
            model="triton/minilm", api_base=f"{text_server.url}/v2/models/minilm/infer", input=["cat " * 1000]
        )


def test_litellm_shows_what_is_wrong_with_a_key(keyed_server: Server) -> None:
    litellm: Any = pytest.importorskip("litellm", reason=NEEDS)

    def embed(key: str) -> Any:
        address = {"api_base": f"{keyed_server.url}/embed", "input_type": "embed"}
        return litellm.embedding(model="huggingface/any/name", api_key=key, input=TEXTS[:1], **address, max_retries=0)

    np.testing.assert_allclose(
        embed("secret").data[0]["embedding"],
        httpx.post(
            f"{keyed_server.url}/embed", json={"inputs": TEXTS[:1]}, headers={"authorization": "Bearer secret"}
        ).json()[0],
        atol=1e-6,
    )
    with pytest.raises(litellm.exceptions.AuthenticationError, match="not one of this server's"):
        embed("wrong")
    with pytest.raises(litellm.exceptions.RateLimitError, match="inputs a second"):
        [embed("slow") for _ in range(2)]


def test_langchains_class_takes_no_address() -> None:
    """As of langchain-huggingface 1.2.3: docs/integrations.md names the class that does."""
    package: Any = pytest.importorskip("langchain_huggingface", reason=NEEDS)
    with pytest.raises(ValueError, match="must be a HuggingFace repo ID, not a URL"):
        package.HuggingFaceEndpointEmbeddings(model="http://localhost:8000")
