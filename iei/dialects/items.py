"""An item of a request → a picture or a text, by the one rule of all dialects; and what may be said about texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict

from iei.dialects.fields import AnyCase
from iei.models.spec import Modality, ModelSpec
from iei.service import ImageInput, Input, Options, TextInput

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


class TextOptions(BaseModel):
    """What a request may say about its texts. Images don't mind."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    truncate: bool | None = None
    """Cut texts that are too long, instead of refusing them."""
    truncation_direction: Annotated[Literal["left", "right"], AnyCase] | None = None
    """The end at which texts are cut. Default: right."""
    prompt_name: str | None = None
    """One of the model's prompts, put before each text."""

    def options(self, **others: Any) -> Options:
        return Options(
            truncate=self.truncate,
            truncation_direction=self.truncation_direction or "right",
            prompt_name=self.prompt_name,
            **others,
        )
