"""Pictures of other sizes than the checkpoint's, and pictures in company."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from iei.checkpoints.vision_architectures import VISION_ARCHITECTURES
from iei.runtimes.api import Model
from iei.runtimes.loading import load
from iei.runtimes.torch.weights import quiet
from tests.checkpoints.vision_checkpoints import FAMILIES, write_checkpoint
from tests.load_requests import load_request
from tests.pictures import photo

pytestmark = pytest.mark.server

ONE_SIZE = {"swin", "pvt"}
ANY_SIZE = [family for family in FAMILIES if family not in ONE_SIZE]


def _runtime(family: str, folder: Path) -> Model:
    return load(load_request("tiny", str(write_checkpoint(family, folder)), threads=1))


def _pixels(height: int, width: int) -> NDArray[np.uint8]:
    return np.asarray(photo(width, height))


@pytest.mark.parametrize("family", sorted(ONE_SIZE))
def test_one_size_is_said_to_be_one_size(family: str, tmp_path: Path) -> None:
    tower = _runtime(family, tmp_path).spec.image
    assert tower is not None
    assert not tower.any_size


@pytest.mark.parametrize("family", ANY_SIZE)
def test_other_sizes_equal_transformers_in_any_order(family: str, tmp_path: Path) -> None:
    """Small pictures first: a model whose state a small picture changes would give other vectors afterwards."""
    runtime = _runtime(family, tmp_path)
    tower = runtime.spec.image
    assert tower is not None
    assert tower.any_size
    stride, native = tower.stride, tower.geometry.size
    for height, width in (
        (4 * stride, 4 * stride),
        (native[0], native[1] + 2 * stride),
        (9 * stride, 9 * stride),
        native,
    ):
        pixels = _pixels(height, width)
        tokens = runtime.run("image", [pixels], ["tokens"])[0]["tokens"]
        assert tokens.shape[0] == tower.rows(pixels.shape).tokens
        assert np.abs(tokens - _reference(family, tmp_path, runtime, pixels)).max() <= 1e-4


def _reference(family: str, folder: Path, runtime: Model, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A fresh transformers model on the same pixels."""
    assert runtime.spec.image is not None
    geometry = runtime.spec.image.geometry
    values = (pixels.astype(np.float64) * geometry.scale - geometry.mean) / geometry.std
    inputs = {"pixel_values": torch.from_numpy(values.astype(np.float32).transpose(2, 0, 1)[None])}
    row = FAMILIES[family]
    with quiet():
        model = getattr(transformers, row.reference).from_pretrained(folder, **row.reference_options).eval()
    model = model.vision_model if family == "clip" else model
    takes_it = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    with torch.no_grad():
        hidden = model(**inputs, **({"interpolate_pos_encoding": True} if takes_it else {})).last_hidden_state[0]
    tokens: NDArray[np.float32] = (hidden.flatten(1).T if hidden.ndim == 3 else hidden).numpy()
    return tokens


def test_a_small_picture_would_change_swin_for_good(tmp_path: Path) -> None:
    """Why Swin has one size. When this fails, transformers has mended it: let Swin have any size."""
    write_checkpoint("swin", tmp_path)
    model = transformers.SwinModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        model(pixel_values=torch.rand(1, 3, 224, 224))
        for side in (96, 224):
            with pytest.raises(RuntimeError, match="must match"):
                model(pixel_values=torch.rand(1, 3, side, side))
    assert VISION_ARCHITECTURES["swin"].sizes == "fixed"


@pytest.mark.parametrize("family", ["vit", "convnext", "swin", "dinov2", "clip"])
def test_alone_or_among_others_makes_no_difference(family: str, tmp_path: Path) -> None:
    runtime = _runtime(family, tmp_path)
    assert runtime.spec.image is not None
    height, width = runtime.spec.image.geometry.size
    rng = np.random.default_rng(0)
    batch = [_pixels(height, width), *rng.integers(0, 256, (31, height, width, 3), np.uint8)]
    outputs = list(runtime.spec.image.outputs)
    alone, among = runtime.run("image", batch[:1], outputs)[0], runtime.run("image", batch, outputs)[0]
    for name in outputs:
        assert np.abs(alone[name] - among[name]).max() <= 1e-5, name


def test_hiera_patches_are_row_by_row(tmp_path: Path) -> None:
    """Inside, Hiera keeps them in another order."""
    runtime = _runtime("hiera", tmp_path)
    pixels = _pixels(224, 224)
    patches = runtime.run("image", [pixels], ["patches"])[0]["patches"]
    assert runtime.spec.image is not None
    geometry = runtime.spec.image.geometry
    values = (pixels.astype(np.float32) * geometry.scale - geometry.mean) / geometry.std
    model = transformers.HieraModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        result = model(torch.from_numpy(values.astype(np.float32).transpose(2, 0, 1)[None]), output_hidden_states=True)
    rows = result.reshaped_hidden_states[-1][0].flatten(0, 1)
    assert np.abs(patches - rows.numpy()).max() <= 1e-4
