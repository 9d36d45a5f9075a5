"""Conversion of request items to inputs, and the options for texts that several dialects share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from iei.dialects.fields import AnyCase
from iei.dialects.partial import OnErrorField, not_null
from iei.models.spec import Modality, Pooling
from iei.requests import ImageInput, Input, Options, TextInput, UntypedInput


def input_of(item: str | Sequence[int], modality: Modality | None = None) -> Input:
    """The input that `item` stands for.

    Args:
        item: a string (an image or a text), or the token ids of a text.
        modality: how the request says strings are to be read. None: it does not say.
    """
    if not isinstance(item, str):
        return TextInput(tuple(item))
    if modality is None:
        return UntypedInput(item)
    return ImageInput(item) if modality == "image" else TextInput(item)


Truncation = Annotated[bool | Literal["none", "start", "end"], AnyCase]
"""Whether texts that are too long are truncated, and at which end: TEI's values and those of NVIDIA and Cohere."""

_END_OF: Mapping[bool | str | None, Literal["left", "right"]] = {"start": "left"}


class TextOptions(BaseModel):
    """Options of a request that apply to texts. They are ignored for images."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    truncate: Truncation | None = None
    """Truncate texts that are too long instead of rejecting them; `START` and `END` also say at which end."""
    truncation_direction: Annotated[Literal["left", "right"], AnyCase] | None = None
    """The end at which texts are truncated. Default: right."""
    prompt_name: str | None = None
    """Name of one of the model's prompts, which is prepended to each text."""

    def options(self, **others: Any) -> Options:
        """These options and `others` as the options of a request.

        Args:
            **others: further fields of `Options`.
        """
        end = _END_OF.get(self.truncate, "right")
        return Options(
            truncate=None if self.truncate is None else self.truncate not in (False, "none"),
            truncation_direction=self.truncation_direction or end,
            prompt_name=self.prompt_name,
            **others,
        )


class ComparisonOptions(TextOptions):
    """Options of a request that compares its inputs with each other."""

    on_error: Annotated[OnErrorField, AfterValidator(not_null)] = None
    """Must be `fail`: scores need all inputs."""


class VectorOptions(BaseModel):
    """Options of a request about the vectors that it gets."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    normalize: bool | None = None
    """Divide each vector by its L2 norm. Default: IEI_NORMALIZE; if unset, texts as the model's pipeline, images no."""
    pooling: Annotated[Pooling, AnyCase] | None = None
    """How token vectors become one vector. Default: IEI_POOLING; `auto` is `mean` for images, the model's for texts."""
    dimensions: int | None = Field(default=None, ge=1)
    """Truncate each vector to this many leading values, before it is normalised."""
    on_error: OnErrorField = None
    """What a bad input costs: `fail`, the whole request (the default); `null`, its own vector only."""


class EmbedOptions(TextOptions, VectorOptions):
    """The options that a request to `/embed` may have besides its inputs; other dialects have them, too."""

    modality: Annotated[Modality, AnyCase] | None = None
    """How a model for both reads strings. Default: data URIs of images are images, other strings are texts."""
