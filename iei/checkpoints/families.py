"""Which `model_type`s can be served, and what they take: all rows of the tables of architectures."""

from __future__ import annotations

from collections.abc import Mapping

from iei.checkpoints.text_architectures import TEXT_ARCHITECTURES, TWO_TOWERS
from iei.checkpoints.vision_architectures import VISION_ARCHITECTURES
from iei.errors import StartupError
from iei.models.spec import Modality

FAMILIES: Mapping[str, tuple[Modality, ...]] = {
    **dict.fromkeys(VISION_ARCHITECTURES, ("image",)),
    **dict.fromkeys(TEXT_ARCHITECTURES, ("text",)),
    **dict.fromkeys(TWO_TOWERS, ("image", "text")),
}
"""`model_type` → what a complete checkpoint of it takes."""


def supported(model_type: object) -> str:
    """Returns the `model_type` of a `config.json`, checked before transformers reads any file of the checkpoint.

    Raises:
        StartupError: no table has a row for it; with all that have one.
    """
    if isinstance(model_type, str) and model_type in FAMILIES:
        return model_type
    raise StartupError(
        f"model_type {model_type!r} is not supported: choose a model of one of the types {_taking('image')} for "
        f"images, {_taking('text')} for texts, {_taking('image', 'text')} for both."
    )


def _taking(*modalities: Modality) -> str:
    return ", ".join(sorted(model_type for model_type, takes in FAMILIES.items() if takes == modalities))
