"""The page of IEI's own client: its blocks run as they stand, and those for other packages work with these packages."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.clients.calls import NEEDS
from tests.pictures import jpeg, png
from tests.servers import ROOT, Server

PAGE = (ROOT / "docs" / "client.md").read_text()
SECTIONS = dict(re.findall(r"^#+ (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
PACKAGES = {"Chroma": "chromadb", "LanceDB": "lancedb", "LangChain": "langchain_core", "LlamaIndex": "llama_index"}


def run(server: Server, *sections: str) -> dict[str, Any]:
    """What the blocks of these sections, one after the other, leave in their namespace."""
    names: dict[str, Any] = {"__name__": "page"}
    for section in sections:
        for block in re.findall(r"^```python\n(.*?)^```", SECTIONS[section], re.M | re.S):
            exec(compile(block.replace("http://localhost:8000", server.url), section, "exec", dont_inherit=True), names)
    return names


def vectors(server: Server, *texts: str) -> np.ndarray:
    answer = httpx.post(f"{server.url}/embed", json={"inputs": texts}, timeout=60)
    return np.array(answer.raise_for_status().json(), np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one, with the pictures of the page."""
    (tmp_path / "cat.jpg").write_bytes(jpeg())
    (tmp_path / "dog.png").write_bytes(png(name="coffee"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def page(request: pytest.FixtureRequest, text_server: Server) -> dict[str, Any]:
    """The names that the section of the test's `section` mark leaves."""
    section: str = request.param
    if find_spec(PACKAGES[section]) is None:
        pytest.skip(NEEDS)
    return run(text_server, section)


def test_the_page_of_the_client_itself(text_server: Server) -> None:
    names = run(text_server, "The Python client", "Pictures", "Batches, threads, tasks", "Errors")
    assert names["scores"].shape == (1, 2)
    np.testing.assert_allclose(names["same"], np.repeat(names["same"][:1], 5, 0), atol=1e-5)
    assert (names["picture"].shape[0], names["texts"].shape[0]) == (1, 2)
    assert names["errors"] == {1: "no such file.jpg: No such file or directory"}
    np.testing.assert_allclose(names["good"], names["client"].embed_images(["cat.jpg", "dog.png"]), atol=1e-5)
    names["client"].close()


@pytest.mark.parametrize("page", ["Chroma"], indirect=True)
def test_chroma(page: dict[str, Any], text_server: Server) -> None:
    import chromadb

    assert set(page["found"]["ids"][0]) == {"cat", "dog"}
    stored = page["collection"].get(ids=["cat"], include=["embeddings"])["embeddings"]
    np.testing.assert_allclose(stored, page["IEI"]().client.embed_images("cat.jpg"), atol=0.02)
    opened: Any = chromadb.EphemeralClient().get_collection("pictures")
    asked = opened.query(query_texts=["a cat on a mat"], n_results=2)
    assert asked["ids"] == page["found"]["ids"], "with the function of the configuration"
    np.testing.assert_allclose(page["IEI"]()(["a cat", "a dog"]), vectors(text_server, "a cat", "a dog"), atol=1e-5)


@pytest.mark.parametrize("page", ["LanceDB"], indirect=True)
def test_lancedb(page: dict[str, Any], text_server: Server, folder: Path) -> None:
    import lancedb

    assert {row["file"] for row in page["found"]} == {"cat.jpg", "dog.png"}
    client = page["iei"].client
    for row in page["found"]:
        np.testing.assert_allclose(row["vector"], client.embed_images(row["file"])[0], atol=1e-5)
    (query,), pictures = vectors(text_server, "a cat on a mat"), client.embed_images(["cat.jpg", "dog.png"])
    cosines = pictures @ query / np.linalg.norm(pictures, axis=1) / np.linalg.norm(query)
    np.testing.assert_allclose([row["_distance"] for row in page["found"]], sorted(1 - cosines), atol=1e-4)
    opened: Any = lancedb.connect(folder / "pictures.lance").open_table("pictures")
    assert [row["file"] for row in opened.search("a cat on a mat").metric("cosine").to_list()] == [
        row["file"] for row in page["found"]
    ], "with the function of the table"


@pytest.mark.parametrize("page", ["LangChain"], indirect=True)
def test_langchain(page: dict[str, Any], text_server: Server) -> None:
    assert page["found"].page_content == "a cat on a mat"
    iei = page["IEI"]()
    np.testing.assert_allclose(iei.embed_query("a cat"), vectors(text_server, "a cat")[0], atol=1e-5)
    np.testing.assert_allclose(iei.embed_image(["cat.jpg"]), iei.client.embed_images("cat.jpg"), atol=1e-6)


@pytest.mark.parametrize("page", ["LlamaIndex"], indirect=True)
def test_llama_index(page: dict[str, Any], text_server: Server) -> None:
    import asyncio

    assert page["found"].text == "a cat on a mat"
    iei = page["IEI"](embed_batch_size=2)
    texts = ["a cat", "a dog", "a mat"]
    np.testing.assert_allclose(iei.get_text_embedding_batch(texts), vectors(text_server, *texts), atol=1e-5)
    picture = iei.client.embed_images("cat.jpg")
    np.testing.assert_allclose(iei.get_image_embedding_batch(["cat.jpg"]), picture, atol=1e-6)
    np.testing.assert_allclose(asyncio.run(iei.aget_image_embedding("cat.jpg")), picture[0], atol=1e-6)
    assert asyncio.run(iei.aget_query_embedding("a cat")) == iei.get_text_embedding("a cat")
