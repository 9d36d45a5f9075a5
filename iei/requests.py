"""What a request is, whatever dialect it came in, and what it becomes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, final

import numpy as np
import numpy.typing as npt

from iei.errors import IEIError
from iei.models.spec import ModelSpec

Vectors = npt.NDArray[np.float32]
"""float32[dim], or float32[rows, dim] of outputs with a vector for each patch or token."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """A picture."""

    source: str | bytes
    """Base64, a data URI or a URL as text; or the encoded file itself."""


@dataclass(frozen=True, slots=True)
class TextInput:
    """A text."""

    source: str | tuple[int, ...]
    """Text, or the ids of its tokens."""


@dataclass(frozen=True, slots=True)
class UntypedInput:
    """A string that may be a picture or a text: which one is decided when the model is known (inputs/modality.py)."""

    source: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What its dialect could make neither a picture nor a text of: it fails as any other bad input does."""

    error: IEIError


Input = ImageInput | TextInput | UntypedInput | Unreadable

OnError = Literal["fail", "null"]
"""What a bad input costs: `fail`, the whole request; `null`, its own vector."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a request wants of its inputs."""

    model: str | None = None
    """A served name or id. None: the default model."""
    outputs: tuple[str, ...] = ("default",)
    """Names of `OUTPUTS`, or `default`: the pooling that the server, or else the model, is set to."""
    normalize: bool | None = None
    """Divide vectors by their L2 norm. None: as the server is set, or else as a text model's own pipeline does; what
    has a vector for each token or patch stays as it is."""
    dimensions: int | None = None
    """Keep this many leading values of each vector (before it is normalised)."""
    resize_to_multiple: bool = False
    """Resize pictures up to multiples of the patch size, instead of to the model's size."""
    truncate: bool | None = None
    """Cut over-long texts instead of refusing them. None: as the dialect's peers do, which is to refuse."""
    truncation_direction: Literal["left", "right"] = "right"
    """The end at which texts are cut."""
    prompt_name: str | None = None
    """One of the text model's prompts, put before each text. A model without it refuses the request."""
    prompt_hints: tuple[str, ...] = ()
    """Names of prompts that would suit, best first: without `prompt_name`, the first that the model has is used."""
    on_error: OnError = "fail"
    """What becomes of a request with a bad input."""


class PictureSize(NamedTuple):
    """Size of a picture as it was decoded, in pixels. `IEI_FAST_DECODE` decodes large JPEGs at a fraction of theirs."""

    width: int
    height: int


@final
@dataclass(frozen=True, slots=True)
class Embedding:
    """What one input became."""

    outputs: Mapping[str, Vectors]
    """Output name → float32[dim] or float32[rows, dim], C-contiguous."""
    tokens: int
    """Tokens of a text, special ones included; patches of a picture."""
    picture: PictureSize | None = None
    """None of a text."""

    @property
    def vector(self) -> Vectors:
        """The only output, where one was asked for."""
        (vector,) = self.outputs.values()
        return vector


Timing = Literal["preprocess", "queue", "inference"]
"""What headers say of the time that an input took."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The answer to a request."""

    spec: ModelSpec
    """The model that computed it."""
    items: list[Embedding | None]
    """In the order of the inputs. None of those that failed, if the request asked for that (`Options.on_error`)."""
    timings: dict[Timing, float] = field(default_factory=dict)
    """Seconds, the mean over the inputs."""
    warnings: tuple[str, ...] = ()
    """Sentences about vectors that may not be what the client takes them for."""
    errors: Mapping[int, IEIError] = field(default_factory=dict)
    """Index of an input that failed → the error that a request with no other bad input would have been refused with."""

    @property
    def done(self) -> list[Embedding]:
        """Those that were computed: all, unless the request wanted null for the others."""
        return [item for item in self.items if item]

    @property
    def vectors(self) -> list[Vectors | None]:
        """The only output of each input."""
        return [item and item.vector for item in self.items]


@dataclass(frozen=True, slots=True)
class Stream:
    """The answer to a request, input by input."""

    items: AsyncIterator[tuple[int, Embedding | IEIError]]
    """Index of an input and what became of it, in the order in which they are done. It raises what kept the request as
    a whole from being answered: whatever has not come yet will not come."""
    deadline: float
    """`time.monotonic()` at which the request is out of time."""
    warnings: tuple[str, ...]
    """As those of `Embeddings`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How queries and candidates compare."""

    embeddings: Embeddings
    """Of the queries, and then of the candidates."""
    cosines: Vectors
    """float32[queries, candidates], from -1 to 1."""
    logits: Vectors | None
    """float32[queries, candidates]: what the checkpoint makes of them. None if it was not trained to score pictures
    against texts."""
    probabilities: Vectors | None
    """float32[queries, candidates], from 0 to 1: what it makes of those, over the candidates of a query. None like
    `logits`."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text."""

    id: int
    text: str
    special: bool
    start: int | None
    """Offset in the text's UTF-8 bytes, the prompt included. None for special tokens."""
    stop: int | None
    """Offset of its end, likewise."""
