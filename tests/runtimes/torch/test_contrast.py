"""The scale and the bias that CLIP and SigLIP checkpoints were trained with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from iei.models.spec import ModelSpec
from iei.runtimes.loading import load
from iei.runtimes.torch.weights import stored_numbers
from tests.checkpoints.text_checkpoints import set_weights, write_text_checkpoint
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.load_requests import load_request

pytestmark = pytest.mark.server


def _spec(folder: Path, **options: Any) -> ModelSpec:
    return load(load_request("tiny", str(folder), **options)).spec


def _numbers(spec: ModelSpec) -> tuple[Any, ...]:
    assert spec.contrast is not None
    return spec.contrast.kind, spec.contrast.scale, spec.contrast.bias


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_are_those_of_the_file_whatever_the_precision(dtype: str, tmp_path: Path) -> None:
    """bfloat16 would make 98.9 of a scale of 100, and -12.94 of a bias of -12.93."""
    clip = write_text_checkpoint("clip", tmp_path / "clip")
    set_weights(clip, logit_scale=4.6051702)
    siglip = write_text_checkpoint("siglip", tmp_path / "siglip")
    set_weights(siglip, logit_scale=4.7647, logit_bias=-12.93)
    assert _numbers(_spec(clip, dtype=dtype)) == ("softmax", pytest.approx(100.0, rel=1e-6), 0.0)
    expected = ("sigmoid", pytest.approx(math.exp(4.7647), rel=1e-6), pytest.approx(-12.93, rel=1e-6))
    assert _numbers(_spec(siglip, dtype=dtype)) == expected


def test_reach_the_workers(tmp_path: Path) -> None:
    spec = _spec(write_text_checkpoint("siglip", tmp_path))
    assert spec.contrast is not None
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("family", ["clip", "siglip", "vit"])
def test_a_model_of_one_kind_has_none(family: str, tmp_path: Path) -> None:
    """CLIP and SigLIP without their tokenizer, too."""
    assert _spec(write_checkpoint(family, tmp_path)).contrast is None


def test_a_text_model_has_none(tmp_path: Path) -> None:
    assert _spec(write_text_checkpoint("bert", tmp_path)).contrast is None


def test_are_found_in_any_kind_of_file(tmp_path: Path) -> None:
    whole = write_text_checkpoint("clip", tmp_path / "whole")
    weights = load_file(whole / "model.safetensors")
    expected = {"logit_scale": pytest.approx(float(weights["logit_scale"]))}
    names = ("logit_scale", "logit_bias")
    assert stored_numbers(whole, names, allow_pickle=False) == expected

    pickled = tmp_path / "pickled"
    pickled.mkdir()
    torch.save(weights, pickled / "pytorch_model.bin")
    assert stored_numbers(pickled, names, allow_pickle=True) == expected

    parts = write_checkpoint("clip", tmp_path / "parts", max_shard_size="100KB")
    index = json.loads((parts / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    assert stored_numbers(parts, names, allow_pickle=False) == expected
