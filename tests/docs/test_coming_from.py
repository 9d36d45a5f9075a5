"""What the page promises to those who come from another server, on a server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.pictures import jpeg, png
from tests.servers import ROOT, Server

PAGE = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
LONG = "a cat " * 500


def post(server: Server, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=60)


def test_the_client_in_five_lines(text_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cat.jpg").write_bytes(jpeg())
    (tmp_path / "dog.png").write_bytes(png(name="coffee"))
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len([line for line in block.splitlines() if line]) <= 5
    names: dict[str, Any] = {}
    exec(compile(block.replace("http://iei:51000", text_server.url), "coming-from.md", "exec"), names)
    assert names["pictures"].dtype == names["texts"].dtype == np.float32
    assert (len(names["pictures"]), len(names["texts"])) == (2, 1)
    assert names["pictures"].shape[1] == names["texts"].shape[1]


def test_texts_are_not_cut_unless_asked(text_server: Server) -> None:
    """Where TEI's default is the other one."""
    refused = post(text_server, "/m/minilm/embed", {"inputs": LONG})
    assert (refused.status_code, refused.json()["error_type"]) == (400, "Validation")
    assert post(text_server, "/m/minilm/embed", {"inputs": LONG, "truncate": True}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_infinitys_defaults_are_taken(text_server: Server, path: str) -> None:
    body = {"model": "default/not-specified", "dimensions": 0, "input": ["a cat"], "modality": "text"}
    answer = post(text_server, path, body)
    vector = answer.raise_for_status().json()["data"][0]["embedding"]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    longer = post(text_server, path, {**body, "normalized": False}).json()["data"][0]["embedding"]
    assert np.linalg.norm(longer) != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("path", ["/rerank", "/embed_sparse", "/post"])
def test_what_is_not_here_is_404(text_server: Server, path: str) -> None:
    assert post(text_server, path, {"inputs": ["a cat"]}).status_code == 404
