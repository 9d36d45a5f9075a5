"""Tiny seeded checkpoints, one per family, laid out as that family's real ones are on the hub.

Same classes and heads (so the same weights are there or missing), same size of pictures, the same style of
`preprocessor_config.json`; only width and depth are small. A folder weighs some hundred KB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from iei.runtimes.torch.weights import quiet

SEED = 7

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
SQUARE = {"size": {"height": 224, "width": 224}}
RESCALE = {"do_rescale": True, "rescale_factor": 0.00392156862745098}

ViT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 224,
    "patch_size": 16,
}
BEIT = {**ViT, "use_relative_position_bias": True, "layer_scale_init_value": 0.1}
SWIN = {"image_size": 224, "embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 7}
CONVNEXT = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 224}
TOWER = {**ViT, "patch_size": 32}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 512,
    "bos_token_id": 510,
    "eos_token_id": 511,
    "pad_token_id": 1,
}


@dataclass(frozen=True)
class Family:
    model: str
    """Class whose `save_pretrained` makes the files: the one of the real checkpoints, heads included."""
    config: str
    options: Mapping[str, Any]
    processor: Mapping[str, Any]
    reference: str = "AutoModel"
    """Class that says what the vectors should be."""
    reference_options: Mapping[str, Any] = field(default_factory=dict)


def _old(name: str, **content: Any) -> dict[str, Any]:
    """As transformers wrote them until 2022: sizes are numbers, the class is a feature extractor."""
    return {"do_normalize": True, "do_resize": True, "feature_extractor_type": f"{name}FeatureExtractor", **content}


def _new(name: str, **content: Any) -> dict[str, Any]:
    return {"do_normalize": True, "do_resize": True, "image_processor_type": name, **RESCALE, **content}


BIT = _new(
    "BitImageProcessor",
    crop_size={"height": 224, "width": 224},
    do_center_crop=True,
    do_convert_rgb=True,
    size={"shortest_edge": 256},
    resample=3,
    **IMAGENET,
)
DINOV3 = _new(
    "DINOv3ViTImageProcessorFast", resample=2, default_to_square=True, do_center_crop=None, **SQUARE, **IMAGENET
)
CLIP_PROCESSOR = _old("CLIP", crop_size=224, do_center_crop=True, resample=3, size=224, **CLIP)
SIGLIP_PROCESSOR = _new("SiglipImageProcessor", processor_class="SiglipProcessor", resample=3, **SQUARE, **HALF)

NO_POOLER = {"add_pooling_layer": False}

FAMILIES: dict[str, Family] = {
    # google/vit-base-patch16-224: a classifier, so no pooler.
    "vit": Family(
        "ViTForImageClassification",
        "ViTConfig",
        ViT,
        {"do_normalize": True, "do_resize": True, "size": 224, **HALF},
        reference="ViTModel",
        reference_options=NO_POOLER,
    ),
    # google/vit-base-patch16-224-in21k
    "vit-pooler": Family("ViTModel", "ViTConfig", ViT, _old("ViT", size=224, resample=2, **HALF), reference="ViTModel"),
    # facebook/deit-base-distilled-patch16-224
    "deit": Family(
        "DeiTForImageClassificationWithTeacher",
        "DeiTConfig",
        ViT,
        _old("DeiT", crop_size=224, do_center_crop=True, resample=3, size=256, **IMAGENET),
        reference="DeiTModel",
        reference_options=NO_POOLER,
    ),
    # microsoft/beit-base-patch16-224
    "beit": Family(
        "BeitForImageClassification",
        "BeitConfig",
        {**BEIT, "use_mean_pooling": True},
        _old("Beit", crop_size=224, do_center_crop=False, resample=2, size=224, **HALF),
    ),
    # facebook/data2vec-vision-base-ft1k
    "data2vec-vision": Family(
        "Data2VecVisionForImageClassification",
        "Data2VecVisionConfig",
        BEIT,
        _old("Beit", crop_size=224, do_center_crop=False, resample=3, size=224, **HALF),
        reference="Data2VecVisionModel",
        reference_options={"add_pooling_layer": True},
    ),
    # facebook/convnext-tiny-224
    "convnext": Family(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        CONVNEXT,
        _old("ConvNext", crop_pct=0.875, resample=3, size=224, **IMAGENET),
    ),
    # facebook/convnextv2-tiny-1k-224
    "convnextv2": Family(
        "ConvNextV2ForImageClassification",
        "ConvNextV2Config",
        CONVNEXT,
        _new("ConvNextImageProcessor", crop_pct=0.875, resample=3, size={"shortest_edge": 224}, **IMAGENET),
    ),
    # microsoft/swin-tiny-patch4-window7-224
    "swin": Family("SwinForImageClassification", "SwinConfig", SWIN, _old("ViT", resample=3, size=224, **IMAGENET)),
    # microsoft/swinv2-tiny-patch4-window8-256
    "swinv2": Family(
        "Swinv2ForImageClassification",
        "Swinv2Config",
        {**SWIN, "image_size": 256, "window_size": 8},
        _new("ViTImageProcessor", resample=3, size={"height": 256, "width": 256}, **IMAGENET),
    ),
    # facebook/dinov2-small: trained at 518 pixels, served at 224
    "dinov2": Family("Dinov2Model", "Dinov2Config", {**ViT, "image_size": 518, "patch_size": 14, "mlp_ratio": 2}, BIT),
    # facebook/dinov2-with-registers-small
    "dinov2_with_registers": Family(
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        {**ViT, "image_size": 518, "patch_size": 14, "mlp_ratio": 2, "num_register_tokens": 4},
        BIT,
    ),
    # facebook/dinov3-vits16-pretrain-lvd1689m
    "dinov3_vit": Family("DINOv3ViTModel", "DINOv3ViTConfig", {**ViT, "num_register_tokens": 4}, DINOV3),
    # facebook/dinov3-convnext-tiny-pretrain-lvd1689m
    "dinov3_convnext": Family("DINOv3ConvNextModel", "DINOv3ConvNextConfig", CONVNEXT, DINOV3),
    # openai/clip-vit-base-patch32
    "clip": Family(
        "CLIPModel",
        "CLIPConfig",
        {"projection_dim": 24, "vision_config": TOWER, "text_config": {**TEXT, "max_position_embeddings": 77}},
        CLIP_PROCESSOR,
        reference="CLIPModel",
    ),
    # The vision tower of a CLIP, as IP-Adapters and unCLIP carry it
    "clip_vision_model": Family(
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        {**TOWER, "projection_dim": 24},
        CLIP_PROCESSOR,
        reference="CLIPVisionModelWithProjection",
    ),
    # google/siglip-base-patch16-224, and google/siglip2-base-patch16-224: fixed-size SigLIP 2 is of the type siglip
    "siglip": Family(
        "SiglipModel",
        "SiglipConfig",
        {"vision_config": TOWER, "text_config": {**TEXT, "max_position_embeddings": 64}},
        SIGLIP_PROCESSOR,
        reference="SiglipVisionModel",
    ),
    "siglip_vision_model": Family("SiglipVisionModel", "SiglipVisionConfig", TOWER, SIGLIP_PROCESSOR),
    # facebook/ijepa_vith14_1k
    "ijepa": Family(
        "IJepaModel",
        "IJepaConfig",
        {**ViT, "patch_size": 14},
        _new("ViTImageProcessor", resample=2, **SQUARE, **IMAGENET),
    ),
    # Zetatech/pvt-tiny-224
    "pvt": Family(
        "PvtForImageClassification",
        "PvtConfig",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]},
        _new("PvtImageProcessor", resample=2, **SQUARE, **IMAGENET),
    ),
    # facebook/hiera-tiny-224-in1k-hf
    "hiera": Family(
        "HieraForImageClassification",
        "HieraConfig",
        {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]},
        BIT,
    ),
    # microsoft/resnet-50
    "resnet": Family(
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [16, 16, 24, 32], "depths": [1, 1, 1, 1]},
        _old("ConvNext", crop_pct=0.875, resample=3, size=224, **IMAGENET),
    ),
}


def write_checkpoint(
    family: str, folder: Path, *, dtype: torch.dtype | None = None, max_shard_size: str | None = None
) -> Path:
    """Writes the family's tiny checkpoint into `folder` and returns it. The same numbers every time."""
    row = FAMILIES[family]
    config = getattr(transformers, row.config)(**row.options)
    model = getattr(transformers, row.model)(config).eval()
    seed_weights(model)
    with quiet():
        model.to(dtype or torch.float32).save_pretrained(
            folder, **({"max_shard_size": max_shard_size} if max_shard_size else {})
        )
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(row.processor), indent=2) + "\n")
    return folder


def seed_weights(model: torch.nn.Module) -> None:
    """Weights that let pictures differ: no norm is 1, no bias is 0, so that nothing left out goes unnoticed."""
    rng = np.random.default_rng(SEED)
    with torch.no_grad():
        for name, weight in sorted(model.state_dict().items()):
            if weight.is_floating_point() and weight.ndim and "logit" not in name:
                weight.copy_(torch.from_numpy(_weight(name, tuple(weight.shape), rng)))


def _weight(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    noise: NDArray[np.float32] = rng.standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        variance: NDArray[np.float32] = 1 + np.abs(0.2 * noise)
        return variance
    if name.endswith(("bias", "running_mean")):
        return 0.1 * noise
    if len(shape) == 1:
        return 1 + 0.1 * noise
    if "position" in name:
        return 0.3 * noise
    deviation = float(np.prod(shape[1:])) ** -0.5
    scaled: NDArray[np.float32] = noise * deviation
    return scaled
