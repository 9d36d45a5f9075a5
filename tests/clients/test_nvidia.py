"""Clients of NVIDIA's NIMs: LangChain's, LlamaIndex's and Semantic Kernel's."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import openai
import pytest

from tests.clients.calls import BAD_URI, LONG, NEEDS, TEXTS, URIS, expected, twice
from tests.servers import Server


def langchain(server: Server, **fields: Any) -> Any:
    package: Any = pytest.importorskip("langchain_nvidia_ai_endpoints", reason=NEEDS)
    return package.NVIDIAEmbeddings(base_url=f"{server.url}/v1", **fields)


def test_langchain(text_server: Server) -> None:
    """Texts and data URIs, with its default `truncate`, which is the word NONE."""
    embeddings = langchain(text_server, model="clip")
    of_texts = expected(text_server, TEXTS)
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), of_texts, atol=1e-5)
    np.testing.assert_allclose(embeddings.embed_documents(URIS), expected(text_server, URIS), atol=1e-5)
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), of_texts[0], atol=1e-5)
    np.testing.assert_allclose(asyncio.run(embeddings.aembed_query(TEXTS[0])), of_texts[0], atol=1e-5)
    assert len(langchain(text_server, model="clip", dimensions=8).embed_query("a")) == 8
    cut = langchain(text_server, model="clip", truncate="END").embed_query(LONG)
    assert len(cut) == of_texts.shape[1]


def test_langchain_finds_the_first_model_by_itself(text_server: Server) -> None:
    embeddings = langchain(text_server)
    assert embeddings.model == "clip"
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), expected(text_server, TEXTS), atol=1e-5)
    assert [model.id for model in embeddings.available_models] == ["clip", "minilm"]


def test_errors_through_langchain(text_server: Server, keyed_server: Server) -> None:
    """Its errors are plain exceptions, whose text begins with the status and the message."""
    embeddings = langchain(text_server, model="clip")
    with pytest.raises(Exception, match=r"^\[400\] input\[0\]: has .* over the model's limit"):
        embeddings.embed_documents([LONG])
    with pytest.raises(Exception, match=r"^\[400\] input\[1\]: "):
        embeddings.embed_documents(["a", BAD_URI])
    embeddings.model = "other"
    with pytest.raises(Exception, match=r"^\[404\] model 'other' is not served here"):
        embeddings.embed_query("a")
    with pytest.raises(Exception, match=r"^\[401\] "):
        langchain(keyed_server, model="clip", api_key="wrong").embed_query("a")
    with pytest.raises(Exception, match=r"^\[429\] "):
        twice(lambda: langchain(keyed_server, model="clip", api_key="slow").embed_query("a"))


def test_llama_index(text_server: Server) -> None:
    package: Any = pytest.importorskip("llama_index.embeddings.nvidia", reason=NEEDS)

    def embedding(**fields: Any) -> Any:
        return package.NVIDIAEmbedding(base_url=f"{text_server.url}/v1", max_retries=0, **fields)

    first = embedding()
    assert first.model == "clip"
    np.testing.assert_allclose(first.get_text_embedding_batch(TEXTS), expected(text_server, TEXTS), atol=1e-5)
    np.testing.assert_allclose(first.get_text_embedding_batch(URIS), expected(text_server, URIS), atol=1e-5)
    np.testing.assert_allclose(
        asyncio.run(embedding(model="minilm").aget_query_embedding(TEXTS[0])),
        expected(text_server, TEXTS[:1], "minilm")[0],
        atol=1e-5,
    )
    with pytest.raises(openai.BadRequestError, match="over the model's limit"):
        first.get_text_embedding(LONG)
    with pytest.raises(openai.BadRequestError, match=r"input\[0\]: "):
        first.get_text_embedding(BAD_URI)
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        embedding(model="other").get_text_embedding("a")


def test_semantic_kernel(text_server: Server) -> None:
    services: Any = pytest.importorskip("semantic_kernel.connectors.ai.nvidia", reason=NEEDS)
    exceptions: Any = pytest.importorskip("semantic_kernel.exceptions", reason=NEEDS)

    def vectors(model: str, texts: list[str]) -> Any:
        async def embed() -> Any:
            async with openai.AsyncOpenAI(base_url=f"{text_server.url}/v1", api_key="none", max_retries=0) as client:
                service = services.NvidiaTextEmbedding(ai_model_id=model, client=client)
                return await service.generate_embeddings(texts)

        return asyncio.run(embed())

    np.testing.assert_allclose(vectors("minilm", TEXTS), expected(text_server, TEXTS, "minilm"), atol=1e-5)
    np.testing.assert_allclose(vectors("clip", URIS), expected(text_server, URIS), atol=1e-5)
    with pytest.raises(exceptions.ServiceResponseException) as refused:
        vectors("clip", [LONG])
    assert isinstance(refused.value.__cause__, openai.BadRequestError)
    assert "over the model's limit" in str(refused.value.__cause__)
