"""Checkpoints with a text side and an image side: loaded once, computed by either, into one space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from iei.checkpoints.sentence_transformers import Pipeline
from iei.checkpoints.text_architectures import TWO_TOWERS
from iei.checkpoints.tokenizer import read_tokenizer
from iei.checkpoints.vision_architectures import VISION_ARCHITECTURES, WEIGHTLESS
from iei.models.spec import Geometry
from iei.runtimes.torch.device import Placement
from iei.runtimes.torch.text import TextModel
from iei.runtimes.torch.vision import VisionModel
from iei.runtimes.torch.weights import Weights, load_weights


def load_two_towers(
    folder: Path, model_type: str, geometry: Geometry, placement: Placement, *, allow_pickle: bool
) -> tuple[Any, VisionModel, TextModel]:
    """The transformers model, and its two sides. Their `pooler` outputs lie in the space that they share.

    Raises:
        StartupError: anything of either side is missing.
    """
    architecture = TWO_TOWERS[model_type]
    tokenizer = read_tokenizer(folder)
    module = load_weights(folder, architecture, placement, allow_pickle=allow_pickle).module
    image = VisionModel(
        Weights(_ImageSide(module), pooler=True),
        replace(VISION_ARCHITECTURES[model_type], pooler=WEIGHTLESS),
        geometry,
        placement,
    )
    text = TextModel(
        Weights(_TextSide(module), pooler=True),
        architecture,
        tokenizer,
        Pipeline(pooling=("pooler",), normalize=False, lowercase=architecture.lowercase),
        placement,
    )
    return module, image, text


class _ImageSide(nn.Module):
    """Looks like a vision model of its own."""

    def __init__(self, both: Any) -> None:
        super().__init__()
        self.both = both
        self.config = both.config.vision_config

    def forward(self, **inputs: Any) -> Any:
        return self.both.get_image_features(**inputs)


class _TextSide(nn.Module):
    """Looks like a text model of its own."""

    def __init__(self, both: Any) -> None:
        super().__init__()
        self.both = both
        self.config = both.config.text_config

    def forward(self, **inputs: Any) -> Any:
        return self.both.get_text_features(**inputs)
