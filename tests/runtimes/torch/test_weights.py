"""What a checkpoint lacks is not made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from iei.errors import StartupError
from iei.runtimes.api import Model
from iei.runtimes.loading import load
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.load_requests import load_request

pytestmark = pytest.mark.server

Weights = dict[str, torch.Tensor]


def _load(folder: Path, **options: Any) -> Model:
    return load(load_request("tiny", str(folder), **options))


def _vector(folder: Path, output: str = "mean", **options: Any) -> np.ndarray:
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    return load(load_request("tiny", str(folder), threads=1, **options)).run("image", [picture], [output])[0][output]


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    """But for the last bits: kernels round otherwise where weights lie at another alignment."""
    return bool(np.abs(left - right).max() <= 1e-6)


def _outputs(model: Model) -> set[str]:
    assert model.spec.image is not None
    return set(model.spec.image.outputs)


def _edit(folder: Path, change: Callable[[Weights], Weights]) -> Path:
    file = folder / "model.safetensors"
    weights = change(load_file(file))
    file.unlink()  # load_file maps it: writing over it would change what is still to be read
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def _without(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize("family", ["vit", "deit"])
def test_no_pooler_without_its_weights(family: str, tmp_path: Path) -> None:
    """google/vit-base-patch16-224 and its like: transformers would pool them with random numbers."""
    write_checkpoint(family, tmp_path)
    assert "pooler" not in _outputs(_load(tmp_path))
    with pytest.raises(
        StartupError, match=r"can't give the pooling pooler \(.* lacks the weights for that\): .* one of cls, mean"
    ):
        _load(tmp_path, pooling="pooler")


def test_pooler_with_its_weights_is_the_same_after_each_load(tmp_path: Path) -> None:
    write_checkpoint("vit-pooler", tmp_path)
    assert "pooler" in _outputs(_load(tmp_path, pooling="pooler"))
    assert _equal(_vector(tmp_path, "pooler"), _vector(tmp_path, "pooler"))


@pytest.mark.parametrize(
    ("family", "weights"),
    [
        ("vit-pooler", "pooler.dense.bias"),
        ("beit", "pooler.layernorm"),
        ("convnext", "convnext.layernorm"),
        ("hiera", "pooler.layernorm"),
        ("siglip_vision_model", "head.probe"),
        ("clip", "visual_projection"),
    ],
)
def test_a_pooler_that_lacks_any_weight_is_not_offered(family: str, weights: str, tmp_path: Path) -> None:
    write_checkpoint(family, tmp_path)
    assert "pooler" in _outputs(_load(tmp_path))
    _edit(tmp_path, _without(weights))
    assert "pooler" not in _outputs(_load(tmp_path))


@pytest.mark.parametrize("family", ["ijepa", "pvt"])
def test_no_pooling_of_its_own_no_pooler(family: str, tmp_path: Path) -> None:
    write_checkpoint(family, tmp_path)
    with pytest.raises(StartupError, match=r"can't give the pooling pooler \(it has no pooling of its own"):
        _load(tmp_path, pooling="pooler")


@pytest.mark.parametrize("family", ["ijepa", "siglip", "convnext", "resnet"])
def test_no_class_token_no_cls(family: str, tmp_path: Path) -> None:
    write_checkpoint(family, tmp_path)
    with pytest.raises(StartupError, match=r"can't give the pooling cls \(it has no class token\)"):
        _load(tmp_path, pooling="cls")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    _edit(write_checkpoint("vit", tmp_path), _without("layer.1.intermediate"))
    with pytest.raises(StartupError, match=r"weights are missing: .*layers\.1\.\S+\.weight"):
        _load(tmp_path)


def test_many_missing_weights_are_counted(tmp_path: Path) -> None:
    _edit(write_checkpoint("vit", tmp_path), _without("layer.1"))
    with pytest.raises(StartupError, match=r"and \d+ more\.$"):
        _load(tmp_path)


def test_weights_that_only_training_uses_may_be_missing(tmp_path: Path) -> None:
    write_checkpoint("dinov2", tmp_path)
    before = _vector(tmp_path)
    _edit(tmp_path, _without("mask_token"))
    assert _equal(_vector(tmp_path), before)


def test_shapes_that_differ_are_named(tmp_path: Path) -> None:
    write_checkpoint("vit", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    with pytest.raises(
        StartupError, match=r"other shapes than its config\.json says: .*\(64, 32\) instead of \(96, 32\)"
    ):
        _load(tmp_path)


def test_half_precision_checkpoint_runs_in_float32(tmp_path: Path) -> None:
    """Its vectors are those of its rounded weights, computed in full."""
    write_checkpoint("vit", tmp_path / "half", dtype=torch.float16)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"
    write_checkpoint("vit", tmp_path / "full")
    _edit(tmp_path / "full", lambda weights: {name: value.half().float() for name, value in weights.items()})
    assert _load(tmp_path / "half").spec.dtype == "float32"
    assert _equal(_vector(tmp_path / "half"), _vector(tmp_path / "full"))


def test_bfloat16_on_request(tmp_path: Path) -> None:
    write_checkpoint("vit", tmp_path)
    model = _load(tmp_path, dtype="bfloat16")
    assert model.spec.dtype == "bfloat16"
    exact, rounded = _vector(tmp_path), _vector(tmp_path, dtype="bfloat16")
    assert rounded.dtype == np.float32
    assert exact @ rounded / np.linalg.norm(exact) / np.linalg.norm(rounded) > 0.999
    assert not _equal(exact, rounded)


def test_shards_are_read_together(tmp_path: Path) -> None:
    write_checkpoint("vit-pooler", tmp_path / "one")
    write_checkpoint("vit-pooler", tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 1
    assert "pooler" in _outputs(_load(tmp_path / "many"))
    assert _equal(_vector(tmp_path / "one", "pooler"), _vector(tmp_path / "many", "pooler"))


def test_a_missing_shard_is_an_error(tmp_path: Path) -> None:
    write_checkpoint("vit", tmp_path, max_shard_size="20KB")
    sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    with pytest.raises(StartupError, match=r"can't be loaded as ViTModel .*model-00002"):
        _load(tmp_path)


def test_a_torn_file_is_an_error(tmp_path: Path) -> None:
    write_checkpoint("vit", tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(StartupError, match=r"model\.safetensors can't be read .*: download or copy it again"):
        _load(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    write_checkpoint("vit", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(StartupError, match=r"has no model\.safetensors"):
        _load(tmp_path)


def _pickled(folder: Path, content: Any) -> Path:
    write_checkpoint("vit-pooler", folder)
    torch.save({**load_file(folder / "model.safetensors"), **content}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_pickles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="IEI_ALLOW_PICKLE=true"):
        _load(_pickled(tmp_path, {}))


def test_pickles_are_read_on_request(tmp_path: Path) -> None:
    write_checkpoint("vit-pooler", tmp_path / "safe")
    _pickled(tmp_path / "pickle", {})
    ours = _vector(tmp_path / "pickle", "pooler", allow_pickle=True)
    assert _equal(ours, _vector(tmp_path / "safe", "pooler"))


class Payload:
    """What a hostile pickle carries: a call, made while it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_pickle_runs_no_code_even_on_request(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    _pickled(tmp_path / "model", {"payload": Payload(touched)})
    with pytest.raises(StartupError, match="can't be read"):
        _load(tmp_path / "model", allow_pickle=True)
    assert not touched.exists()


def test_a_classifier_loads_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """transformers would print a table of its head, and bars."""
    write_checkpoint("vit", tmp_path)
    capfd.readouterr()
    _load(tmp_path)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""
