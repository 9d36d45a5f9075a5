"""The table model_type → where an architecture keeps its class token, its patches and its own pooling.

One row per family, each compared with transformers by tests/runtimes/torch/test_vision_parity.py. A `model_type`
without a row is refused before transformers reads any of its files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Pooler:
    """A model's own pooling."""

    weights: str = ""
    """Prefix of the names of its weights in the module. Empty: it has no weights that a checkpoint could lack."""
    field: str = "pooler_output"
    """Field of the model's result that holds it, [B, D] or [B, D, 1, 1]."""
    removable: bool = False
    """Whether the class takes `add_pooling_layer`."""


@dataclass(frozen=True, slots=True)
class VisionArchitecture:
    """One family of vision models."""

    model: str
    """Name of the class in transformers."""
    stride: Callable[[Any], int]
    """Config → pixels between neighbouring patches."""
    layout: Literal["tokens", "map"] = "tokens"
    """Shape of the last hidden state: `tokens` [B, N, D], or a feature `map` [B, D, H, W]."""
    class_token: int | None = None
    """Index of the class token."""
    prefix: int = 0
    """How many class and distillation tokens there are; they come first."""
    registers: str | None = None
    """Attribute of the config that counts the register tokens, which follow the prefix."""
    pooler: Pooler | None = None
    sizes: Literal["fixed", "interpolate", "any"] = "fixed"
    """Pictures not of the config's size: refused, computed with `interpolate_pos_encoding`, or just computed."""
    tower: str | None = None
    """Attribute of the config that describes the image side of a model with two."""

    def first_patch(self, config: Any) -> int:
        """Returns the index of the first patch token for a transformers `config`."""
        return self.prefix + (getattr(config, self.registers) if self.registers else 0)


def _flat(config: Any) -> int:
    return _side(config.patch_size)


def _pyramid(config: Any) -> int:
    """Each stage after the first halves the map; models without a `patch_size` begin at a quarter."""
    first = _side(getattr(config, "patch_stride", getattr(config, "patch_size", 4)))
    return first * int(2 ** (len(config.depths) - 1))


def _side(size: Any) -> int:
    return int(size if isinstance(size, int) else size[0])


LAYER = Pooler("pooler.", removable=True)
"""A layer with weights, which many classifiers were saved without."""
WEIGHTLESS = Pooler()
"""Made from the class token or a mean, without weights."""
_NORM = Pooler("layernorm.")
"""A norm over the mean."""
_SIGLIP = VisionArchitecture("SiglipVisionModel", _flat, pooler=Pooler("head."), sizes="interpolate")
_CLIP = VisionArchitecture(
    "CLIPVisionModelWithProjection",
    _flat,
    class_token=0,
    prefix=1,
    pooler=Pooler("visual_projection.", field="image_embeds"),
    sizes="interpolate",
)


def _beside_text(image_side: VisionArchitecture) -> VisionArchitecture:
    return replace(image_side, tower="vision_config")


VISION_ARCHITECTURES: Mapping[str, VisionArchitecture] = {
    "beit": VisionArchitecture("BeitModel", _flat, class_token=0, prefix=1, pooler=LAYER, sizes="interpolate"),
    "clip": _beside_text(_CLIP),
    "clip_vision_model": _CLIP,
    "convnext": VisionArchitecture("ConvNextModel", _pyramid, layout="map", pooler=_NORM, sizes="any"),
    "convnextv2": VisionArchitecture("ConvNextV2Model", _pyramid, layout="map", pooler=_NORM, sizes="any"),
    "data2vec-vision": VisionArchitecture(
        "Data2VecVisionModel", _flat, class_token=0, prefix=1, pooler=LAYER, sizes="interpolate"
    ),
    # transformers' class always has a distillation token; plain DeiT checkpoints are of the type vit.
    "deit": VisionArchitecture("DeiTModel", _flat, class_token=0, prefix=2, pooler=LAYER, sizes="interpolate"),
    "dinov2": VisionArchitecture("Dinov2Model", _flat, class_token=0, prefix=1, pooler=WEIGHTLESS, sizes="any"),
    "dinov2_with_registers": VisionArchitecture(
        "Dinov2WithRegistersModel",
        _flat,
        class_token=0,
        prefix=1,
        registers="num_register_tokens",
        pooler=WEIGHTLESS,
        sizes="any",
    ),
    # Its "class token" is the mean of the map, put before the patches and normalised with them.
    "dinov3_convnext": VisionArchitecture(
        "DINOv3ConvNextModel", _pyramid, class_token=0, prefix=1, pooler=WEIGHTLESS, sizes="any"
    ),
    "dinov3_vit": VisionArchitecture(
        "DINOv3ViTModel",
        _flat,
        class_token=0,
        prefix=1,
        registers="num_register_tokens",
        pooler=WEIGHTLESS,
        sizes="any",
    ),
    "hiera": VisionArchitecture("HieraModel", _pyramid, pooler=LAYER, sizes="interpolate"),
    "ijepa": VisionArchitecture("IJepaModel", _flat, sizes="interpolate"),
    # Its positions interpolate to the size that they already have, so only one size works.
    "pvt": VisionArchitecture("PvtModel", lambda config: prod(config.strides), class_token=0, prefix=1),
    "resnet": VisionArchitecture("ResNetModel", _pyramid, layout="map", pooler=WEIGHTLESS, sizes="any"),
    "siglip": _beside_text(_SIGLIP),
    "siglip_vision_model": _SIGLIP,
    # A picture smaller than its windows shrinks them for good, and later pictures fail or change: one size only.
    "swin": VisionArchitecture("SwinModel", _pyramid, pooler=WEIGHTLESS),
    "swinv2": VisionArchitecture("Swinv2Model", _pyramid, pooler=WEIGHTLESS, sizes="interpolate"),
    "vit": VisionArchitecture("ViTModel", _flat, class_token=0, prefix=1, pooler=LAYER, sizes="interpolate"),
}
