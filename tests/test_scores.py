"""Cosines → what a checkpoint makes of them, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iei.models.spec import Contrast
from iei.scores import logits, probabilities

COSINES = np.random.default_rng(3).uniform(-1, 1, (4, 5)).astype(np.float32)


@pytest.mark.parametrize("contrast", [Contrast("softmax", 100.0), Contrast("sigmoid", 117.3, -12.93)])
def test_equals_torch(contrast: Contrast) -> None:
    expected = torch.from_numpy(COSINES) * contrast.scale + contrast.bias
    assert np.abs(logits(COSINES, contrast) - expected.numpy()).max() <= 1e-4
    scores = expected.softmax(-1) if contrast.kind == "softmax" else expected.sigmoid()
    ours = probabilities(COSINES, contrast)
    assert np.abs(ours - scores.numpy()).max() <= 1e-6
    assert np.allclose(ours, scores.numpy(), rtol=1e-3, atol=1e-30), "of small ones, too"


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_no_scale_overflows(kind: str, scale: float) -> None:
    contrast = Contrast("softmax" if kind == "softmax" else "sigmoid", scale)
    with np.errstate(all="raise", under="ignore"):
        scores = probabilities(COSINES, contrast)
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
