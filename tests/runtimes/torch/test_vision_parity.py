"""Every family, every output: the same vectors as transformers gives, from the photo to the pooling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from iei.inputs.geometry import to_pixels
from iei.runtimes.api import Model
from iei.runtimes.torch.weights import quiet
from tests.checkpoints.vision_checkpoints import FAMILIES, write_checkpoint
from tests.pictures import photos
from tests.runtimes.torch.parity import (
    Case,
    Outputs,
    assert_all_equal,
    assert_described,
    cases,
    cosine,
    load_case,
)

pytestmark = pytest.mark.server

PHOTOS = ("coffee", "rocket", "flower")

FIRST_PATCH = {
    **dict.fromkeys(("vit", "vit-pooler", "beit", "data2vec-vision", "dinov2", "clip", "clip_vision_model", "pvt"), 1),
    "deit": 2,
    "dinov2_with_registers": 5,
    "dinov3_vit": 5,
    "dinov3_convnext": 1,
}
"""Families with a class token → their first patch, from the papers rather than from the table under test."""

OFFERS_POOLER = set(FAMILIES) - {"vit", "deit", "ijepa", "pvt"}


@pytest.fixture(scope="module", params=cases(FAMILIES, "vit", "resnet", "dinov2_with_registers"))
def case(request: pytest.FixtureRequest) -> Case:
    case: Case = request.param
    return case


@pytest.fixture(scope="module")
def family(case: Case) -> str:
    return case.family


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(family, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def runtime(case: Case, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_case(case, checkpoint, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def vectors(runtime: Model) -> list[Outputs]:
    assert runtime.spec.image is not None
    pixels = [to_pixels(photos()[name], runtime.spec.image.geometry) for name in PHOTOS]
    return runtime.run("image", pixels, list(runtime.spec.image.outputs))


@pytest.fixture(scope="module")
def expected(family: str, checkpoint: Path) -> list[Outputs]:
    """transformers' processor and model; poolings spelled out in numpy."""
    row = FAMILIES[family]
    backend = "torchvision" if family.startswith("dinov3") else "pil"
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint, backend=backend)
    with quiet():
        model = getattr(transformers, row.reference).from_pretrained(checkpoint, **row.reference_options).eval()
    inputs = processor([photos()[name] for name in PHOTOS], return_tensors="pt")
    with torch.no_grad():
        if family == "clip":
            result = model.vision_model(**inputs)
            pooled = model.visual_projection(result.pooler_output)
        else:
            result = model(**inputs)
            pooled = result.get("pooler_output") if family != "clip_vision_model" else result.image_embeds
    hidden = result.last_hidden_state
    if hidden.ndim == 4:
        hidden = hidden.permute(0, 2, 3, 1).reshape(hidden.shape[0], -1, hidden.shape[1])
    return [
        _poolings(tokens, FIRST_PATCH.get(family), None if pooled is None else pooled[index].flatten().numpy())
        for index, tokens in enumerate(hidden.numpy())
    ]


def _poolings(tokens: NDArray[np.float32], first_patch: int | None, pooled: NDArray[np.float32] | None) -> Outputs:
    patches = tokens[first_patch or 0 :]
    outputs = {
        "mean": tokens.mean(0),
        "patch_mean": patches.mean(0),
        "max": patches.max(0),
        "patches": patches,
        "tokens": tokens,
    }
    if first_patch is not None:
        outputs["cls"] = tokens[0]
    if pooled is not None:
        outputs["pooler"] = pooled
    return outputs


def test_offers_exactly_what_the_checkpoint_can_give(family: str, runtime: Model, expected: list[Outputs]) -> None:
    assert runtime.spec.image is not None
    assert set(runtime.spec.image.outputs) == set(expected[0])
    assert ("pooler" in runtime.spec.image.outputs) == (family in OFFERS_POOLER)


def test_equals_transformers(vectors: list[Outputs], expected: list[Outputs]) -> None:
    assert_all_equal(vectors, expected)


def test_photos_differ(vectors: list[Outputs]) -> None:
    """Else parity would say nothing."""
    assert cosine(vectors[0]["mean"], vectors[1]["mean"]) < 0.999


def test_describes_what_it_gives(runtime: Model, vectors: list[Outputs]) -> None:
    tower = runtime.spec.image
    assert tower is not None
    assert_described(tower, vectors[0], (*tower.geometry.size, 3))
