"""Descriptions of loaded models as plain data, made by the engine and read by every worker.

Nothing here imports torch or transformers, because workers don't load models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple, get_args

from pydantic import TypeAdapter

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

Pooling = Literal["cls", "mean", "patch_mean", "max", "last", "pooler"]

POOLED: tuple[str, ...] = get_args(Pooling)
"""Outputs that are one vector per input. `last` is the last token of a text."""

ROWS = ("patches", "tokens")
"""Outputs that are one vector per patch, or per token, of an input."""

OUTPUTS = POOLED + ROWS
"""Every name that a client may ask for, in the order in which outputs lie in memory. Meanings: docs/models.md."""

_WHY_NOT: Mapping[str, str] = {
    "cls": "it has no class token",
    "patch_mean": "only pictures have patches",
    "patches": "only pictures have patches",
    "last": "only texts have a last token",
    "pooler": "it has no pooling of its own, or its checkpoint lacks the weights for that",
}


Matryoshka = tuple[int, ...] | bool | None
"""Whether the leading values of a vector alone were trained to be a vector: for these counts; for any (True); for none
(False); not known (None)."""


class Rows(NamedTuple):
    """How many vectors each output of `ROWS` has, for one input."""

    patches: int
    tokens: int


def why_not(output: str) -> str:
    """Why a model may lack this output, for error messages."""
    return _WHY_NOT.get(output, "there is no such output")


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a checkpoint's images are preprocessed: resize, crop, then scale and normalise.

    Read from the checkpoint's own `preprocessor_config.json`, never guessed from a model's name. Workers resize
    and crop, and send uint8 pixels; the engine rescales and normalises them on the device.
    """

    resize: Literal["exact", "short_side", "none"]
    """`exact`: to `height`×`width`, aspect ratio not kept. `short_side`: the shorter side to `height`, aspect kept."""
    height: int
    width: int
    resample: int
    """Pillow's number of the filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming."""
    crop: tuple[int, int] | None = None
    """Centre crop to (height, width), after the resize; zeros where the image is smaller."""
    scale: float = 1 / 255
    """Pixels are multiplied by this. 1.0: left as they are."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    float_resize: bool = False
    """Resample in float32, without rounding back to uint8 (DINOv3): pixels travel as float32, already in [0, 255]."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pixels that the model sees."""
        return self.crop or (self.height, self.width)

    @property
    def resized(self) -> tuple[int, int] | None:
        """The least (height, width) that a picture has after the resize, before the crop; None: it keeps its own."""
        return None if self.resize == "none" else (self.height, self.width)

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of an upright picture of this size after the resize."""
        if self.resize == "none":
            return width, height
        if self.resize == "exact":
            return self.width, self.height
        short = self.height
        if width <= height:
            return short, int(short * height / width)
        return int(short * width / height), short

    def crop_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The centre crop (left, top, right, bottom) of a resized picture; it may extend beyond the picture."""
        if self.crop is None:
            return 0, 0, width, height
        left, top = (width - self.crop[1]) // 2, (height - self.crop[0]) // 2
        return left, top, left + self.crop[1], top + self.crop[0]


@dataclass(frozen=True, slots=True)
class ImageTower:
    """The part of a model that embeds images."""

    geometry: Geometry
    outputs: Mapping[str, int]
    """Outputs that this checkpoint supports → length of their vectors. Others are rejected."""
    tokens: int
    """Rows of `tokens` for a picture of the geometry's size."""
    patches: int
    """Rows of `patches` for a picture of the geometry's size."""
    stride: int
    """Pixels between neighbouring patches."""
    pooling: str = "mean"
    """Default pooling of requests that name none."""
    any_size: bool = False
    """Whether the model also accepts other sizes that are multiples of `stride`."""
    decodes: bool = False
    """Whether the engine also takes JPEGs (`iei.encoded`), and makes what the geometry says of them."""

    def rows(self, shape: tuple[int, ...]) -> Rows:
        """How many vectors the outputs of `ROWS` have for pixels of `shape` [H, W, 3], or for a JPEG [N]."""
        patches = self.patches
        if len(shape) == 3 and shape[:2] != self.geometry.size:
            height, width, _ = shape
            patches = (height // self.stride) * (width // self.stride)
        return Rows(patches, patches + self.tokens - self.patches)


@dataclass(frozen=True, slots=True)
class TextTower:
    """The part of a model that embeds texts."""

    tokenizer: str
    """Path of the `tokenizer.json`."""
    outputs: Mapping[str, int]
    max_tokens: int
    """Longest input, special tokens included."""
    pooling: str
    """Default pooling of requests that name none."""
    normalize: bool = True
    """Whether the checkpoint's own pipeline ends with L2 normalisation."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    lowercase: bool = False

    def rows(self, shape: tuple[int, ...]) -> Rows:
        """How many vectors the outputs of `ROWS` have for token ids of `shape` [L]. A text has no patches."""
        return Rows(0, shape[0])


Tower = ImageTower | TextTower


@dataclass(frozen=True, slots=True)
class Contrast:
    """How a checkpoint with two towers scores a picture and a text: `scale` · cosine + `bias`, the logit.

    Both are weights of the checkpoint, learned with the towers.
    """

    kind: Literal["softmax", "sigmoid"]
    """What makes scores of logits: the softmax over all texts (CLIP), or a sigmoid for each pair (SigLIP)."""
    scale: float
    bias: float = 0.0


def output_shapes(tower: Tower, outputs: Iterable[str], rows: Rows) -> dict[str, tuple[int, ...]]:
    """Shapes of `outputs` for an input that has `rows`: (dim,) of pooled ones, (rows, dim) of the others."""
    counts = rows._asdict()
    return {name: (tower.outputs[name],) if name in POOLED else (counts[name], tower.outputs[name]) for name in outputs}


@dataclass(frozen=True, slots=True)
class Quality:
    """How near vectors of a lower precision are to those of float32, measured on pictures of its own."""

    median_cosine: float
    low_cosine: float
    """The 1st percentile."""
    neighbours: float
    """Share of the 10 nearest neighbours of a picture that are the same."""
    pictures: int
    """How many pictures were compared; as many others were calibrated on."""
    calibration: str
    """What these pictures are: `drawn`, or the name of the folder."""

    def __str__(self) -> str:
        return (
            f"cosines {self.median_cosine:.5f} in the median and {self.low_cosine:.5f} in the 1st percentile, "
            f"{self.neighbours:.1%} of the 10 nearest neighbours, over {self.pictures} pictures ({self.calibration})"
        )


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Description of a loaded model."""

    name: str
    """What clients call it."""
    id: str
    """Hub id or folder that it came from."""
    revision: str | None
    model_type: str
    device: str
    dtype: str
    runtime: str
    parameters: int
    max_batch: int = 1
    """Most inputs in one forward."""
    image: ImageTower | None = None
    text: TextTower | None = None
    contrast: Contrast | None = None
    """How pictures and texts are scored against each other; None unless the checkpoint was trained for that."""
    matryoshka: Matryoshka = None
    """Which shorter vectors it was trained for."""
    runtime_reason: str | None = None
    """Why a runtime that would have been preferred does not compute it; None if there is none."""
    quality: Quality | None = None
    """Of a quantised model."""

    @property
    def tower(self) -> Tower:
        """The tower that gives a model its default outputs: the image side where there is one."""
        tower = self.image or self.text
        if tower is None:
            raise ValueError(f"{self.id} takes neither images nor texts")
        return tower

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that the model accepts."""
        return tuple(name for name in MODALITIES if self.tower_for(name))

    def tower_for(self, modality: Modality) -> Tower | None:
        """The tower for inputs of this modality; None if the model does not accept them."""
        return self.image if modality == "image" else self.text

    def to_json(self) -> bytes:
        """Serialises the spec for `from_json`."""
        return _adapter().dump_json(self)

    @staticmethod
    def from_json(data: bytes | str) -> ModelSpec:
        """The spec that `to_json` has serialised.

        Raises:
            pydantic.ValidationError: `data` is not a spec.
        """
        return _adapter().validate_json(data)


@cache
def _adapter() -> TypeAdapter[ModelSpec]:
    """Made when it is first needed: it takes as long as a small model's forward."""
    return TypeAdapter(ModelSpec)
