"""What a served model is, as plain data: made by the engine once, read by every worker.

Nothing here imports torch or transformers, so a worker can know all about a model that it never loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

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


def why_not(output: str) -> str:
    """Why a model may be without this output."""
    return _WHY_NOT.get(output, "there is no such output")


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a checkpoint wants its pictures: resize, crop, then scale and normalise.

    Read from the checkpoint's own `preprocessor_config.json`, never guessed from a model's name. Workers follow it up
    to the crop and hand on uint8 pixels; the engine rescales and normalises them on the device.
    """

    resize: Literal["exact", "short_side", "none"]
    """`exact`: to `height`×`width`, aspect ratio not kept. `short_side`: the shorter side to `height`, aspect kept."""
    height: int
    width: int
    resample: int
    """PIL's number of the filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming."""
    crop: tuple[int, int] | None = None
    """Centre crop to (height, width), after the resize; zeros where the picture is smaller."""
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


@dataclass(frozen=True, slots=True)
class ImageTower:
    """The part of a model that takes pictures."""

    geometry: Geometry
    outputs: Mapping[str, int]
    """Sound outputs of this checkpoint → length of their vectors. What is not here is refused, with this list."""
    tokens: int
    """Rows of `tokens` for a picture of the geometry's size."""
    patches: int
    """Rows of `patches` for a picture of the geometry's size."""
    stride: int
    """Pixels between neighbouring patches."""
    pooling: str = "mean"
    """What requests get that name none."""
    any_size: bool = False
    """Whether other sizes, in multiples of `stride`, are computed too."""

    def rows(self, output: str, shape: tuple[int, ...]) -> int:
        """How many vectors `output` has for pixels [H, W, 3]."""
        if output in POOLED:
            return 1
        height, width, _ = shape
        patches = self.patches
        if (height, width) != self.geometry.size:
            patches = (height // self.stride) * (width // self.stride)
        return patches if output == "patches" else patches + self.tokens - self.patches


@dataclass(frozen=True, slots=True)
class TextTower:
    """The part of a model that takes texts."""

    tokenizer: str
    """Path of the `tokenizer.json`."""
    outputs: Mapping[str, int]
    max_tokens: int
    """Longest input, special tokens included."""
    pooling: str
    """What requests get that name none."""
    normalize: bool = True
    """Whether the checkpoint's own pipeline ends with L2 normalisation."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    lowercase: bool = False

    def rows(self, output: str, shape: tuple[int, ...]) -> int:
        """How many vectors `output` has for token ids [L]."""
        return 1 if output in POOLED else shape[0]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A loaded model, described."""

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

    @property
    def tower(self) -> ImageTower | TextTower:
        """The tower that gives a model its default outputs: the image side where there is one."""
        tower = self.image or self.text
        if tower is None:
            raise ValueError(f"{self.id} takes neither images nor texts")
        return tower

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What it takes."""
        return tuple(name for name in MODALITIES if self.tower_for(name))

    def tower_for(self, modality: Modality) -> ImageTower | TextTower | None:
        return self.image if modality == "image" else self.text

    def to_json(self) -> bytes:
        return _ADAPTER.dump_json(self)

    @staticmethod
    def from_json(data: bytes | str) -> ModelSpec:
        return _ADAPTER.validate_json(data)


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Everything that decides how a model is loaded: all that the engine needs to know of the settings."""

    name: str
    id: str
    """Hub id, local folder, or `demo`."""
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    pooling: str = "auto"
    """The pooling that requests get by default. `auto`: for pictures `mean`, for texts what the checkpoint was trained
    for, and the shared space where there are both."""
    pooling_optional: bool = False
    """A model that can't give `pooling` is served with its own default instead of being refused."""
    attention: str = "auto"
    quantization: str = "none"
    threads: int = 0
    """CPU threads of one forward. 0: as many as the machine has cores."""
    max_batch: int = 0
    """Most inputs in one forward. 0: the device's default."""
    allow_pickle: bool = False
    """Take `pytorch_model.bin` (through torch's restricted unpickler) where a checkpoint has no safetensors."""
    prefer_cache: bool = False
    """Use what the cache has of a hub id, if it is complete, without asking the hub for something newer."""
    cache_dir: str | None = None
    """Where the demo model is made. None: `~/.cache/iei`."""


_ADAPTER = TypeAdapter(ModelSpec)
