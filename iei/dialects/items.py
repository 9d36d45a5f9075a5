"""An item of a request → a picture or a text: the one rule that all dialects share."""

from __future__ import annotations

from collections.abc import Sequence

from iei.models.spec import Modality, ModelSpec
from iei.service import ImageInput, Input, TextInput

IMAGE_PREFIX = "data:image/"


def input_of(item: str | Sequence[int], spec: ModelSpec, modality: Modality | None = None) -> Input:
    """What `item`, a string or the token ids of a text, means to this model.

    Args:
        modality: what the request says that its strings are, if it says so.
    """
    if not isinstance(item, str):
        return TextInput(tuple(item))
    return ImageInput(item) if (modality or _modality_of(item, spec)) == "image" else TextInput(item)


def _modality_of(item: str, spec: ModelSpec) -> Modality:
    """A data URI says what it is. Any other string is a text where the model has them: `cats` is base64, too."""
    if item[: len(IMAGE_PREFIX)].lower() == IMAGE_PREFIX:
        return "image"
    return "text" if spec.text else "image"
