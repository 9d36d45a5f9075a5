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
import transformers
from numpy.typing import NDArray

from iei.errors import StartupError
from iei.runtimes.torch.weights import quiet

VERSION = "demo-v1"
"""Name of its folder. To change a byte of the model is to change this."""

SEED = 20250501

CONFIG = {
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "image_size": 224,
    "patch_size": 16,
}
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
    """Where the demo model is, made on first use in `cache_dir` (default `~/.cache/iei`).

    Any number of processes may ask at once. Raises StartupError where the folder can't be written.
    """
    cache = Path(cache_dir or "~/.cache/iei").expanduser()
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
    """Writes the model into `folder`: the same bytes wherever the same versions of numpy and transformers do it."""
    model = transformers.ViTModel(transformers.ViTConfig(**CONFIG)).eval()
    rng = np.random.Generator(np.random.PCG64(SEED))
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            weight.copy_(torch.from_numpy(_initial(name, tuple(weight.shape), rng)))
    with quiet():
        model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")


def _publish(folder: Path) -> None:
    """Written aside and renamed: whoever else looks sees a whole model or none."""
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


def _initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Variance is kept from layer to layer, so that what differs between pictures is not drowned on its way up."""
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    learned_tokens = "embeddings" in name and "projection" not in name
    deviation = 0.1 if learned_tokens else float(np.prod(shape[1:])) ** -0.5
    return rng.normal(0, deviation, shape).astype(np.float32)
