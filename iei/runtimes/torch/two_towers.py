"""Checkpoints with a text side and an image side: one transformers model, computed by either side."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from iei.checkpoints.checkpoint import TextFiles
from iei.checkpoints.text_architectures import TWO_TOWERS
from iei.checkpoints.vision_architectures import VISION_ARCHITECTURES, WEIGHTLESS
from iei.models.spec import Contrast, Geometry
from iei.runtimes.torch.device import Placement
from iei.runtimes.torch.text_model import TextModel
from iei.runtimes.torch.vision_model import VisionModel
from iei.runtimes.torch.weights import Weights, load_weights, stored_numbers


def load_two_towers(
    folder: Path, model_type: str, geometry: Geometry, files: TextFiles, placement: Placement, *, allow_pickle: bool
) -> tuple[Any, VisionModel, TextModel, Contrast | None]:
    """Loads both sides. Their `pooler` outputs lie in the space that they share.

    Args:
        folder: the checkpoint's.
        model_type: a row of `TWO_TOWERS`.
        geometry: how pictures are prepared.
        files: how texts are prepared.
        placement: where and how to compute.
        allow_pickle: whether the weights may be in a pickle.

    Returns:
        The transformers model, its two sides, and how their vectors are scored.

    Raises:
        StartupError: a weight of either side is missing, or can't be read.
    """
    architecture = TWO_TOWERS[model_type]
    module = load_weights(folder, architecture, placement, allow_pickle=allow_pickle).module
    image = VisionModel(
        Weights(_ImageSide(module), pooler=True),
        replace(VISION_ARCHITECTURES[model_type], pooler=WEIGHTLESS),
        geometry,
        placement,
    )
    text = TextModel(Weights(_TextSide(module), pooler=True), architecture, files, placement)
    return module, image, text, _contrast(folder, allow_pickle)


def _contrast(folder: Path, allow_pickle: bool) -> Contrast | None:
    """Returns what the checkpoint was trained to do with cosines.

    The sigmoid loss has a bias to learn, and the softmax loss has none: it would cancel out.
    """
    stored = stored_numbers(folder, ("logit_scale", "logit_bias"), allow_pickle=allow_pickle)
    if "logit_scale" not in stored:
        return None
    kind: Literal["softmax", "sigmoid"] = "sigmoid" if "logit_bias" in stored else "softmax"
    return Contrast(kind, math.exp(stored["logit_scale"]), stored.get("logit_bias", 0.0))


class _ImageSide(nn.Module):
    """Has the interface of a transformers vision model."""

    def __init__(self, both: Any) -> None:
        super().__init__()
        self.both = both
        self.config = both.config.vision_config

    def forward(self, **inputs: Any) -> Any:
        return self.both.get_image_features(**inputs)


class _TextSide(nn.Module):
    """Has the interface of a transformers text model."""

    def __init__(self, both: Any) -> None:
        super().__init__()
        self.both = both
        self.config = both.config.text_config

    def forward(self, **inputs: Any) -> Any:
        return self.both.get_text_features(**inputs)
