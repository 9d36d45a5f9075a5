"""Decides whether a string is an image or a text. All dialects use this rule."""

from __future__ import annotations

from iei.models.spec import ModelSpec
from iei.requests import ImageInput, Input, TextInput, Unreadable, UntypedInput

IMAGE_PREFIX = "data:image/"


def typed(item: Input, spec: ModelSpec) -> ImageInput | TextInput | Unreadable:
    """`item` as an image or a text, for the model `spec`.

    Data URIs of images are images. Any other string is a text if the model accepts texts, as words such as `cats`
    are valid base64 too; otherwise it is an image.
    """
    if not isinstance(item, UntypedInput):
        return item
    is_data_uri = item.source[: len(IMAGE_PREFIX)].lower() == IMAGE_PREFIX
    return ImageInput(item.source) if is_data_uri or not spec.text else TextInput(item.source)
