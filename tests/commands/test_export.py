"""`iei export`, and a server of what it has written."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest

from iei.commands.main import main
from iei.errors import StartupError
from iei.models.spec import Modality
from iei.runtimes.api import Input
from iei.runtimes.loading import load
from iei.runtimes.openvino import convert
from tests import pictures
from tests.checkpoints.text_checkpoints import write_text_checkpoint
from tests.load_requests import load_request
from tests.runtimes.torch.parity import assert_all_equal
from tests.servers import Server, serve
from tests.without_torch import without_torch

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of the tests stays as it is."""
    monkeypatch.setattr("iei.commands.export.configure", lambda settings: None)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP, whose own folder is gone."""
    folder = tmp_path_factory.mktemp("export")
    checkpoint = write_text_checkpoint("clip", folder / "clip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iei.commands.export.convert", convert.convert)
        patch.setattr("iei.commands.export.configure", lambda settings: None)
        main(["export", str(folder / "tiny"), "--model", str(checkpoint)])
    checkpoint.rename(folder / "gone")
    return folder / "tiny"


@pytest.fixture(scope="module")
def server(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """In none of its processes can torch be imported."""
    settings = {"IMAGE_EMBEDDING_MODEL": str(exported), "IEI_RUNTIME": "auto"}
    if find_spec("grpc"):
        settings["IEI_GRPC_BIND"] = "127.0.0.1:0"
    with serve({**settings, **without_torch(tmp_path_factory.mktemp("without_torch"))}, workers=1) as server:
        yield server


def test_has_no_weights_for_torch(exported: Path) -> None:
    assert not list(exported.rglob("*.safetensors"))
    assert {file.suffix for file in (exported / "openvino").iterdir()} == {".xml", ".bin", ".json"}
    assert json.loads((exported / "config.json").read_text())["model_type"] == "clip"
    assert {file.name for file in exported.parent.iterdir()} == {"tiny", "gone"}, "a draft is left"


def test_is_served_without_torch(exported: Path, server: Server) -> None:
    info = httpx.get(f"{server.url}/info").json()
    assert info["runtime"].startswith("openvino ")
    assert info["modalities"] == ["image", "text"]
    for body in ({"inputs": "a cat"}, {"inputs": f"data:image/png;base64,{base64.b64encode(pictures.png()).decode()}"}):
        answer = httpx.post(f"{server.url}/embed", json=body)
        assert len(answer.raise_for_status().json()[0]) == info["dim"]


def test_serves_grpc_without_torch(server: Server) -> None:
    grpc = pytest.importorskip("grpc", reason="needs the extra grpc")
    with grpc.insecure_channel(server.grpc) as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"  # SERVING


def test_gives_the_vectors_of_the_checkpoint(exported: Path) -> None:
    ours = load(load_request("tiny", str(exported), runtime="auto", threads=1))
    torchs = load(load_request("tiny", str(exported.parent / "gone"), threads=1))
    inputs: dict[Modality, Input] = {
        "image": np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8),
        "text": np.array([510, 4, 5, 511], np.int32),
    }
    for modality, array in inputs.items():
        assert_all_equal(*(model.run(modality, [array], ["mean", "pooler", "tokens"]) for model in (ours, torchs)))


def test_torch_does_not_take_it(exported: Path) -> None:
    with pytest.raises(StartupError, match=r"not torch: `iei export` has written .* no weights"):
        load(load_request("tiny", str(exported), runtime="torch"))


def test_a_folder_that_is_there_stays_as_it_was(exported: Path) -> None:
    with pytest.raises(SystemExit, match="is there already"):
        main(["export", str(exported), "--demo"])
    with pytest.raises(SystemExit, match="has been exported already"):
        main(["export", str(exported.parent / "again"), "--model", str(exported)])


def test_what_cannot_be_converted_is_not_exported(tmp_path: Path) -> None:
    checkpoint = write_text_checkpoint("gemma3_text", tmp_path / "gemma")
    with pytest.raises(SystemExit, match="can't be exported for OpenVINO: the masks"):
        main(["export", str(tmp_path / "tiny"), "--model", str(checkpoint)])
    assert not (tmp_path / "tiny").exists()
