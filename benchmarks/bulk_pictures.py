"""Small pictures, drawn quickly, all of them different, and a model that is quicker still."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 24
"""Pixels."""
PER_FOLDER = 10_000


def draw(folder: Path, count: int) -> None:
    """Writes `count` pictures of `SIDE`×`SIDE` pixels, in folders of `PER_FOLDER`. The same ones every time."""
    chance = np.random.default_rng(0)
    for number in range(count):
        if number % PER_FOLDER == 0:
            below = folder / f"{number // PER_FOLDER:03}"
            below.mkdir(parents=True)
        pixels = np.tile(chance.integers(0, 256, (2, 2, 3), np.uint8), (SIDE // 2, SIDE // 2, 1))
        Image.fromarray(pixels).save(below / f"{number:06}.png", compress_level=1)


def write_tiny_model(folder: Path) -> Path:
    """The tests' smallest ViT."""
    from tests.checkpoints.vision_checkpoints import write_checkpoint

    return write_checkpoint("vit", folder)


def command(model: Path, *arguments: object) -> list[str]:
    """`iei embed` with that model, on the CPU."""
    return [sys.executable, "-m", "iei", "embed", "--model", str(model), "--device", "cpu", *map(str, arguments)]
