"""`iei` where torch and transformers are not installed; test_export.py has the server of what has been exported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iei.checkpoints.demo import demo_folder
from iei.errors import StartupError
from iei.runtimes.loading import load
from tests import pictures
from tests.load_requests import load_request
from tests.without_torch import without_torch

_TORCH_IS_MISSING = (
    "{model} has not been converted for OpenVINO, and {missing}, which convert it, are not installed here: run `iei "
    "export FOLDER --model {model}` where they are and serve that folder, or use an image that has torch."
)


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.server
@pytest.mark.parametrize(
    "command",
    [["serve", "--port", "0"], ["embed", "picture.png"], ["export", "exported"]],
    ids=lambda command: command[0],
)
def test_the_demo_is_refused_with_what_to_do(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(pictures.png())
    done = subprocess.run(
        [sys.executable, "-m", "iei", *command, "--demo"],
        cwd=tmp_path,
        env={**os.environ, **without_torch(tmp_path), "IEI_RUNTIME": "auto", "IEI_CACHE_DIR": str(tmp_path / "c")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    sentence = _TORCH_IS_MISSING.format(model="demo", missing="torch and transformers")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"iei: {sentence}")
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "exported").exists()


@pytest.mark.usefixtures("no_torch")
def test_a_model_of_the_hub_is_refused_before_it_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iei.runtimes.loading.find_folder", lambda request: pytest.fail("it was downloaded"))
    with pytest.raises(StartupError) as caught:
        load(load_request("tiny", "org/vit", runtime="auto", device="cpu"))
    assert str(caught.value) == _TORCH_IS_MISSING.format(model="org/vit", missing="torch and transformers")


@pytest.mark.usefixtures("no_torch")
def test_a_folder_is_refused_for_what_it_is(tmp_path: Path) -> None:
    """A path with a mistake in it is told as one: the folder that was meant may have been exported."""
    with pytest.raises(StartupError, match="There is no folder"):
        load(load_request("tiny", str(tmp_path / "missing"), runtime="auto", device="cpu"))
    checkpoint = demo_folder(tmp_path)
    with pytest.raises(StartupError, match=f"^{checkpoint} has not been converted for OpenVINO, and torch and"):
        load(load_request("tiny", str(checkpoint), runtime="auto", device="cpu", cache_dir=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_torch_without_transformers_is_no_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(StartupError, match="not torch: transformers can't be found"):
        load(load_request("tiny", str(demo_folder(tmp_path)), runtime="torch", device="cpu"))
