"""Clients of OpenAI's API: the official one, LangChain's, LlamaIndex's and LiteLLM."""

from __future__ import annotations

from typing import Any

import numpy as np
import openai
import pytest
from openai.types import CreateEmbeddingResponse

from tests.clients.calls import BAD_URI, LONG, NEEDS, TEXTS, URIS, expected, twice
from tests.servers import Server


def client(server: Server, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def test_conversations(text_server: Server) -> None:
    """As vLLM's examples send them with OpenAI's client."""
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URIS[0]}}]}]
    text = [{"role": "user", "content": TEXTS[0]}]

    def vectors(messages: object) -> list[list[float]]:
        body = {"model": "clip", "messages": messages, "encoding_format": "float"}
        answer = client(text_server).post("/embeddings", cast_to=CreateEmbeddingResponse, body=body)
        return [item.embedding for item in answer.data]

    np.testing.assert_allclose(vectors(image), expected(text_server, URIS[:1]), atol=1e-5)
    np.testing.assert_allclose(vectors([text, image]), expected(text_server, [TEXTS[0], URIS[0]]), atol=1e-5)
    with pytest.raises(openai.BadRequestError, match=r"messages\[1\]: has 1 images and 1 texts"):
        vectors([text, [*image, *text]])


def test_without_v1(text_server: Server) -> None:
    with openai.OpenAI(base_url=text_server.url, api_key="none") as bare:
        answer = bare.embeddings.create(model="clip", input=TEXTS)
        np.testing.assert_allclose([item.embedding for item in answer.data], expected(text_server, TEXTS), atol=1e-5)
        assert [model.id for model in bare.models.list()] == ["clip", "minilm"]


def test_partial_answers(text_server: Server) -> None:
    """The client asks for base64 by itself, and leaves null as it is."""
    answer = client(text_server).embeddings.create(
        model="clip", input=[*TEXTS, BAD_URI], extra_body={"on_error": "null"}
    )
    *vectors, nothing = (item.embedding for item in answer.data)
    np.testing.assert_allclose(vectors, expected(text_server, TEXTS), atol=1e-5)
    assert nothing is None
    (error,) = answer.to_dict()["errors"]
    assert error["index"] == len(TEXTS)


def test_keys(keyed_server: Server) -> None:
    answer = client(keyed_server, "secret").embeddings.create(model="clip", input=TEXTS)
    assert len(answer.data) == 2
    with pytest.raises(openai.AuthenticationError) as wrong:
        client(keyed_server, "wrong").embeddings.create(model="clip", input=TEXTS)
    assert (wrong.value.code, wrong.value.type) == ("invalid_api_key", "authentication_error")
    with pytest.raises(openai.RateLimitError) as slow:
        twice(lambda: client(keyed_server, "slow").embeddings.create(model="clip", input="a cat"))
    assert slow.value.type == "rate_limit_error"
    assert int(slow.value.response.headers["retry-after"]) > 0


def langchain(server: Server, **fields: Any) -> Any:
    package: Any = pytest.importorskip("langchain_openai", reason=NEEDS)
    return package.OpenAIEmbeddings(**{"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0, **fields})


def test_langchain(text_server: Server) -> None:
    embeddings = langchain(text_server, model="minilm", check_embedding_ctx_length=False)
    of_texts = expected(text_server, TEXTS, "minilm")
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), of_texts, atol=1e-5)
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), of_texts[0], atol=1e-5)
    of_images = langchain(text_server, model="clip", check_embedding_ctx_length=False).embed_documents(URIS)
    np.testing.assert_allclose(of_images, expected(text_server, URIS), atol=1e-5)
    with pytest.raises(openai.BadRequestError, match="over the model's limit"):
        embeddings.embed_documents([LONG])
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        langchain(text_server, model="other", check_embedding_ctx_length=False).embed_query("a")


def test_langchain_is_told_that_its_token_ids_are_not_the_models(
    text_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default it sends ids of OpenAI's tokenizer, whose data this test replaces: it would be downloaded."""
    tiktoken: Any = pytest.importorskip("tiktoken", reason=NEEDS)
    ranks = {bytes([value]): value for value in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: encoding)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as refused:
        langchain(text_server, model="minilm").embed_documents(TEXTS)
    assert refused.value.param == "input"


def test_llama_index(text_server: Server) -> None:
    package: Any = pytest.importorskip("llama_index.embeddings.openai", reason=NEEDS)

    def embedding(model: str) -> Any:
        return package.OpenAIEmbedding(
            model_name=model, api_base=f"{text_server.url}/v1", api_key="none", max_retries=0
        )

    np.testing.assert_allclose(
        embedding("minilm").get_text_embedding_batch(TEXTS), expected(text_server, TEXTS, "minilm"), atol=1e-5
    )
    np.testing.assert_allclose(embedding("clip").get_text_embedding_batch(URIS), expected(text_server, URIS), atol=1e-5)
    with pytest.raises(openai.BadRequestError, match=r"input\[0\]: "):
        embedding("clip").get_text_embedding(BAD_URI)
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        embedding("other").get_query_embedding("a")


PROVIDERS = {"openai": "/v1", "hosted_vllm": "/v1", "nvidia_nim": "/v1", "jina_ai": "/v1", "infinity": ""}
"""LiteLLM's name of a provider → path of its `api_base`."""


def litellm_vectors(server: Server, provider: str, inputs: list[str], **fields: Any) -> list[list[float]]:
    litellm: Any = pytest.importorskip("litellm", reason=NEEDS)
    arguments = {"model": "clip", "api_key": "none", **fields}
    arguments["model"] = f"{provider}/{arguments['model']}"
    answer = litellm.embedding(api_base=server.url + PROVIDERS[provider], input=inputs, max_retries=0, **arguments)
    assert answer.usage.total_tokens > 0
    return [item["embedding"] for item in answer.data]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_litellm(text_server: Server, provider: str) -> None:
    for inputs in (TEXTS, URIS, [TEXTS[0], URIS[0]]):
        vectors = litellm_vectors(text_server, provider, inputs)
        np.testing.assert_allclose(vectors, expected(text_server, inputs), atol=1e-5)
    cut = litellm_vectors(text_server, provider, TEXTS, dimensions=8, allowed_openai_params=["dimensions"])
    assert np.shape(cut) == (2, 8)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_errors_through_litellm(
    text_server: Server, keyed_server: Server, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    litellm: Any = pytest.importorskip("litellm", reason=NEEDS)
    monkeypatch.setattr(litellm, "DEFAULT_MAX_RETRIES", 0)  # which it takes for a `max_retries` of 0
    with pytest.raises(litellm.NotFoundError, match="is not served here"):
        litellm_vectors(text_server, provider, TEXTS, model="other")
    with pytest.raises(litellm.BadRequestError, match="over the model's limit"):
        litellm_vectors(text_server, provider, ["a", LONG])
    with pytest.raises(litellm.BadRequestError, match="input"):
        litellm_vectors(text_server, provider, [BAD_URI])
    with pytest.raises(litellm.AuthenticationError):
        litellm_vectors(keyed_server, provider, TEXTS, api_key="wrong")
    with pytest.raises(litellm.RateLimitError):
        twice(lambda: litellm_vectors(keyed_server, provider, TEXTS[:1], api_key="slow"))
