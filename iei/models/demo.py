"""The built-in demo model: a small ViT of random weights, made on the spot, so that IEI can be tried with no download.

Its vectors are no good for search, but they are the same everywhere and differ from picture to picture.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from iei.models.weights import quiet

VERSION = "demo-v1"
SEED = 20_250_501

PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def demo_folder(cache_dir: str | None) -> Path:
    """Where the demo model is, made on first use in `cache_dir` (default `~/.cache/iei`)."""
    cache = Path(cache_dir).expanduser() if cache_dir else Path.home() / ".cache" / "iei"
    folder = cache / VERSION
    if not (folder / "config.json").is_file():
        _publish(folder)
    return folder


def _publish(folder: Path) -> None:
    """Write aside, then rename: whoever else looks sees a whole model or none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{VERSION}-", dir=folder.parent))
    try:
        write_demo(draft)
        draft.rename(folder)
    except OSError:
        # A rename on a folder that is not empty fails: another process was first, with the same bytes.
        if not (folder / "config.json").is_file():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_demo(folder: Path) -> None:
    """Write the model into `folder`: the same bytes wherever the same versions of numpy and safetensors make it."""
    from transformers import ViTConfig, ViTModel

    model = ViTModel(
        ViTConfig(
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=3,
            intermediate_size=768,
            image_size=224,
            patch_size=16,
        )
    ).eval()
    rng = np.random.Generator(np.random.PCG64(SEED))
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            weight.copy_(torch.from_numpy(_initial(name, tuple(weight.shape), rng)))
    with quiet():
        model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")


def _initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    if "embeddings" in name and "projection" not in name:
        return rng.normal(0, 0.1, shape).astype(np.float32)
    # Variance-preserving, so that what differs between pictures is not drowned on its way up.
    fan_in = int(np.prod(shape[1:]))
    return rng.normal(0, fan_in**-0.5, shape).astype(np.float32)
