"""What is measured: a model of the size of ViT-Tiny, and photos as phones and web sites send them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.pictures import base64_of, jpeg, photos

SIZE = (500, 375)
"""Pixels (width, height) of every picture: those of ImageNet's photos."""

SEED = 0
VIT_TINY = {
    "hidden_size": 192,
    "num_hidden_layers": 12,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "image_size": 224,
    "patch_size": 16,
}


def write_model(folder: Path) -> None:
    """Writes a seeded ViT-Tiny/16 at 224 pixels (5.5 million weights) and its preprocessor into `folder`."""
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(SEED)
    ViTModel(ViTConfig(**VIT_TINY)).save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)


def pictures() -> list[str]:
    """Several different photos, as base64 of JPEG files."""
    return [base64_of(jpeg(*SIZE, name)) for name in photos()]


def bodies() -> list[str]:
    """One `POST /embed` body for each picture."""
    return [json.dumps({"inputs": [picture]}) for picture in pictures()]
