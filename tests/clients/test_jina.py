"""Chroma's embedding function for Jina's API, which sends texts and images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.clients.calls import LONG, NEEDS, TEXTS, URIS, expected
from tests.pictures import data_uri, encode, photo
from tests.servers import Server


@pytest.fixture
def chroma(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its class, with a key, which it can't do without."""
    functions: Any = pytest.importorskip("chromadb.utils.embedding_functions", reason=NEEDS)
    monkeypatch.setenv("CHROMA_JINA_API_KEY", "none")
    monkeypatch.delenv("JINA_API_KEY", raising=False)
    return functions.JinaEmbeddingFunction


def function(chroma: Any, server: Server, **fields: Any) -> Any:
    made = chroma(**{"model_name": "clip", **fields})
    made._api_url = f"{server.url}/v1/embeddings"  # it has no setting for the address
    return made


def test_chroma(text_server: Server, chroma: Any) -> None:
    picture = photo(64, 48)
    of_picture = expected(text_server, [data_uri(encode(picture, "PNG"), "image/png")])
    embed = function(chroma, text_server, task="retrieval.passage", late_chunking=False, truncate=False)
    np.testing.assert_allclose(embed(TEXTS), expected(text_server, TEXTS), atol=1e-5)
    np.testing.assert_allclose(embed([np.asarray(picture)]), of_picture, atol=1e-5)
    mixed = embed([TEXTS[0], np.asarray(picture)])
    np.testing.assert_allclose(mixed, [expected(text_server, TEXTS[:1])[0], of_picture[0]], atol=1e-5)
    query = function(chroma, text_server, query_config={"task": "retrieval.query"}).embed_query(TEXTS)
    np.testing.assert_allclose(query, expected(text_server, TEXTS), atol=1e-5)


def test_chroma_with_other_forms_of_vectors(text_server: Server, chroma: Any) -> None:
    bits = function(chroma, text_server, embedding_type="binary", normalized=True)(URIS)
    found = np.unpackbits((np.array(bits) + 128).astype(np.uint8), axis=1)
    assert np.array_equal(found, expected(text_server, URIS) >= 0)
    assert np.shape(function(chroma, text_server, dimensions=8)(TEXTS)) == (2, 8)


def test_errors_through_chroma(text_server: Server, keyed_server: Server, chroma: Any) -> None:
    """It raises `detail`, whatever the status is."""
    with pytest.raises(Exception, match=r"input\[1\]: .*over the model's limit"):
        function(chroma, text_server)(["a", LONG])
    with pytest.raises(Exception, match="model 'other' is not served here"):
        function(chroma, text_server, model_name="other")(TEXTS)
    with pytest.raises(Exception, match="late_chunking: is not offered here"):
        function(chroma, text_server, late_chunking=True)(TEXTS)
    with pytest.raises(Exception, match="key"):
        function(chroma, keyed_server)(TEXTS)
