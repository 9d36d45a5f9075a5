"""What vectors say about each other: cosines, and what a checkpoint with two towers was trained to make of them."""

from __future__ import annotations

import numpy as np

from iei.models.spec import Contrast
from iei.requests import Vectors


def logits(cosines: Vectors, contrast: Contrast) -> Vectors:
    """The checkpoint's own scores.

    Args:
        cosines: float32 of any shape, each of a picture and a text.
        contrast: the checkpoint's scale and bias.

    Returns:
        float32 of the same shape.
    """
    return cosines * np.float32(contrast.scale) + np.float32(contrast.bias)


def probabilities(cosines: Vectors, contrast: Contrast) -> Vectors:
    """How likely each text describes the picture of its row.

    Args:
        cosines: float32[pictures, texts].
        contrast: the checkpoint's scale and bias.

    Returns:
        float32[pictures, texts], from 0 to 1. With a softmax, each row adds up to 1; with a sigmoid, every number
        stands for itself.
    """
    scores = logits(cosines, contrast)
    if contrast.kind == "sigmoid":
        return _sigmoid(scores)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Vectors = weights / weights.sum(axis=-1, keepdims=True)
    return shares


def _sigmoid(scores: Vectors) -> Vectors:
    """Without overflow, and as exact near 0 as near 1: most labels fit a picture with a probability far below 1 %."""
    result: Vectors = np.exp(-np.logaddexp(np.float32(0), -scores))
    return result
