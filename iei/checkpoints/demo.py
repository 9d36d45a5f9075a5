"""The built-in demo model: a small ViT, trained on drawings, to try IEI without a download. Written on first use.

The folder `training/` of the repository made its weights; docs/models.md says what they are good for.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from iei.errors import StartupError
from iei.machine import cache_folder

VERSION = "demo-v2"
"""Name of the model's folder. Change it whenever a weight changes: the old folder is in people's caches."""

SHIPPED = Path(__file__).with_name("demo_weights.safetensors")
"""The weights in float16, as `training/` made them: half the bytes, and the vectors change by less than 10⁻³."""

WIDTH, MLP_WIDTH, LAYERS, SIDE, PATCH = 192, 768, 4, 224, 16

CONFIG = {
    "architectures": ["ViTModel"],
    "attention_probs_dropout_prob": 0.0,
    "dtype": "float32",
    "encoder_stride": PATCH,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": WIDTH,
    "image_size": SIDE,
    "initializer_range": 0.02,
    "intermediate_size": MLP_WIDTH,
    "layer_norm_eps": 1e-12,
    "model_type": "vit",
    "num_attention_heads": 3,
    "num_channels": 3,
    "num_hidden_layers": LAYERS,
    "patch_size": PATCH,
    "pooler_act": "tanh",
    "pooler_output_size": WIDTH,
    "qkv_bias": True,
}
"""Every value that transformers' `ViTConfig` has, so that its defaults can change without changing the model."""

PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": SIDE, "width": SIDE},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def demo_folder(cache_dir: Path | None) -> Path:
    """Returns the demo model's folder, which is written into `cache_dir` (default: `~/.cache/iei`) on first use.

    Several processes may call this at the same time.

    Raises:
        StartupError: the folder can't be written.
    """
    cache = cache_folder(cache_dir)
    folder = cache / VERSION
    if not folder.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            _publish(folder)
        except OSError as error:
            raise StartupError(
                f"The demo model can't be written to {cache} ({error.strerror}): set IEI_CACHE_DIR to another folder."
            ) from error
    return folder


def write_demo(folder: Path) -> None:
    """Writes config.json, preprocessor_config.json and model.safetensors into `folder`. Always the same bytes.

    Raises:
        OSError: the folder can't be written.
    """
    for file, content in (("config.json", CONFIG), ("preprocessor_config.json", PREPROCESSOR)):
        (folder / file).write_text(json.dumps(content, indent=2) + "\n")
    # Written by Python, whose OSError demo_folder explains. transformers reads only files of the format "pt".
    (folder / "model.safetensors").write_bytes(save(_weights(), metadata={"format": "pt"}))


def _publish(folder: Path) -> None:
    """Writes to a temporary folder and renames it, so that other processes see a complete model or none."""
    draft = Path(tempfile.mkdtemp(prefix=f".{VERSION}-", dir=folder.parent))
    try:
        write_demo(draft)
        draft.chmod(0o755)  # mkdtemp's folders are for one user only
        draft.rename(folder)
    except OSError:
        # Another process was first: its folder is not empty, so the rename failed.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _weights() -> dict[str, NDArray[np.float32]]:
    """The weights of a `ViTModel`, as transformers names them in files. They are shipped in half the bytes."""
    return {name: half.astype(np.float32) for name, half in load(SHIPPED.read_bytes()).items()}
