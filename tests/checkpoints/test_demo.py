from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file

from benchmarks import demo_model
from iei.checkpoints.demo import VERSION, demo_folder, write_demo
from iei.errors import StartupError
from iei.inputs.geometry import to_pixels
from iei.runtimes.loading import load
from iei.runtimes.torch.weights import quiet
from tests.load_requests import load_request
from tests.pictures import photos


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_is_the_same_model_everywhere(tmp_path: Path) -> None:
    """Change VERSION together with these bytes: the old model is in people's caches."""
    write_demo(tmp_path)
    digest = hashlib.sha256()
    for name, weight in sorted(load_file(tmp_path / "model.safetensors").items()):
        digest.update(name.encode() + weight.tobytes())
    assert VERSION == "demo-v2"
    assert digest.hexdigest() == "a60cd192fc0283fa4574fdb2bec8a404788dcb42cf0ce04ea2e1b71cbb890fc7"


def test_transformers_loads_all_of_it_and_misses_nothing(tmp_path: Path) -> None:
    write_demo(tmp_path)
    with quiet():
        model, info = transformers.ViTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert {name: keys for name, keys in info.items() if keys} == {}
    assert sum(weight.numel() for weight in model.parameters()) == sum(
        weight.size for weight in load_file(tmp_path / "model.safetensors").values()
    )


@pytest.mark.server
def test_is_written_without_torch(tmp_path: Path) -> None:
    """The processes that fetch models need neither torch nor transformers."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom iei.checkpoints.demo import demo_folder\n"
        "demo_folder(Path(sys.argv[1]))\nprint({'torch', 'transformers'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_who_comes_second_takes_the_model_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes find nothing and begin; the other one is ready first."""
    other_is_done = False

    def write_slowly(folder: Path) -> None:
        nonlocal other_is_done
        if not other_is_done:
            other_is_done = True
            demo_folder(tmp_path / "shared")
        write_demo(folder)

    monkeypatch.setattr("iei.checkpoints.demo.write_demo", write_slowly)
    folder = demo_folder(tmp_path / "shared")
    assert folder == tmp_path / "shared" / VERSION
    assert list(folder.parent.iterdir()) == [folder]
    assert _bytes(folder) == _bytes(demo_folder(tmp_path / "alone"))


def test_a_broken_attempt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("iei.checkpoints.demo.write_demo", full_disk)
    with pytest.raises(StartupError, match="No space left on device"):
        demo_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_is_made_once(tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in demo_folder(tmp_path).iterdir()}
    assert {file: file.stat().st_mtime_ns for file in demo_folder(tmp_path).iterdir()} == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"can't be written to .*/file \(.*IEI_CACHE_DIR"):
        demo_folder(tmp_path / "file")


def test_pictures_differ_in_every_pooling(tmp_path: Path) -> None:
    runtime = load(load_request("demo", "demo", cache_dir=tmp_path, threads=1))
    tower = runtime.spec.image
    assert tower is not None
    assert set(tower.outputs) == {"cls", "mean", "patch_mean", "max", "pooler", "patches", "tokens"}
    pixels = [to_pixels(photos()[name], tower.geometry) for name in ("astronaut", "coffee", "rocket", "china")]
    results = runtime.run("image", pixels, list(tower.outputs))
    for name in ("cls", "mean", "patch_mean", "max", "pooler"):
        for left, right in combinations([result[name] for result in results], 2):
            assert left @ right / np.linalg.norm(left) / np.linalg.norm(right) < 0.99, name


@pytest.fixture(scope="module")
def embed() -> demo_model.Embed:
    """The demo model on IEI's own runtime."""
    return demo_model.model("demo")


def test_changed_photos_find_their_originals(embed: demo_model.Embed) -> None:
    """Of the 25 pictures of scikit-image and scikit-learn, which it has never seen."""
    assert len(demo_model.gallery()) >= 25
    assert demo_model.retrieval(embed, views=4) >= 0.95


def test_tells_textures_apart_better_than_histograms_do(embed: demo_model.Embed) -> None:
    textures = demo_model.textures()
    assert textures.accuracy(embed) > textures.accuracy(demo_model.histogram("RGB", (8, 8, 8))) + 0.1
