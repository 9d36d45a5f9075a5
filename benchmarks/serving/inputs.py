"""Models, pictures and the vectors that every contender has to give: made once, in a folder.

    python -m benchmarks.serving.inputs FOLDER MODEL SIZE…

A process of its own, because torch, transformers and pictures of 12 MP leave much memory behind.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import ROOT, progress
from benchmarks.serving.cells import SIZES

CLIP = "CLIP-B/32"
MODELS: dict[str, dict[str, Any]] = {
    "ViT-Tiny": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    "ViT-B": {},
    "Swin-T": {},
    CLIP: {"text_config": {"num_hidden_layers": 2}},
    "no size": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 16,
        "patch_size": 112,
    },
}
"""Name → what differs from the defaults of transformers' configuration. Weights are random and seeded."""


@dataclass(frozen=True)
class Inputs:
    """What a model is measured with."""

    folder: Path

    @property
    def model(self) -> Path:
        """The checkpoint."""
        return self.folder / "model"

    @property
    def pooling(self) -> str:
        """Of IEI's, for the vector that `reference` has."""
        return "pooler" if self.folder.name == _name(CLIP) else "mean"

    def file(self, size: str) -> Path:
        """A JSON list of JPEG files in base64."""
        return self.folder.parent / f"{_name(size)}.json"

    def pictures(self, size: str) -> list[str]:
        """What is in the file."""
        files: list[str] = json.loads(self.file(size).read_text())
        return files

    def reference(self, size: str) -> np.ndarray:
        """float32[n, dimension]: transformers' vectors of the first pictures."""
        vectors: np.ndarray = np.load(self._reference(size))
        return vectors

    def has(self, size: str) -> bool:
        """Whether all is there for pictures of this size."""
        return self._reference(size).exists()

    def _reference(self, size: str) -> Path:
        return self.folder / f"{_name(size)}.npy"


def prepare(folder: Path, model: str, sizes: list[str]) -> Inputs:
    """What is missing is made."""
    inputs = Inputs(folder / _name(model))
    if not all(inputs.has(size) for size in sizes):
        progress(f"{model}: weights, pictures and transformers' vectors …")
        subprocess.run([sys.executable, "-m", __spec__.name, str(folder), model, *sizes], cwd=ROOT, check=True)
    return inputs


def _name(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())


def _make(folder: Path, model: str, sizes: list[str]) -> None:
    """Reference vectors come last, each written at once: they say that the rest is whole."""
    from tests.pictures import base64_of, jpeg, photos

    inputs = Inputs(folder / _name(model))
    inputs.folder.mkdir(parents=True, exist_ok=True)
    if not (inputs.model / "config.json").exists():
        _write_model(model, inputs.model)
    for size in sizes:
        if not (file := inputs.file(size)).exists():
            file.write_text(json.dumps([base64_of(jpeg(*SIZES[size], name)) for name in photos()]))
        vectors = _vectors(inputs.model, inputs.pictures(size)[:CHECKED])
        with inputs._reference(size).open("wb") as place:
            np.save(place, vectors)


CHECKED = 4
"""Pictures of each size whose vectors are compared."""


def _write_model(name: str, folder: Path) -> None:
    import torch
    import transformers

    from tests.checkpoints.fake_tokenizers import write_tokenizer

    transformers.logging.set_verbosity_error()
    architecture = {CLIP: "CLIP", "Swin-T": "Swin"}.get(name, "ViT")
    processor = {CLIP: "CLIP"}.get(name, "ViT")
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**MODELS[name])
    getattr(transformers, f"{architecture}Model")(config).save_pretrained(folder)
    getattr(transformers, f"{processor}ImageProcessor")().save_pretrained(folder)
    if name == CLIP:  # infinity loads the whole processor
        write_tokenizer("clip", folder)


def _vectors(folder: Path, pictures: list[str]) -> np.ndarray:
    """float32[n, dimension] of transformers in float32, with the image processor that uses Pillow."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    images = [Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB") for picture in pictures]
    with torch.inference_mode():
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        if hasattr(model, "get_image_features"):
            vectors = model.get_image_features(pixel_values=pixels).pooler_output
        else:
            vectors = model(pixel_values=pixels).last_hidden_state.mean(dim=1)
    found: np.ndarray = vectors.numpy()
    return found


if __name__ == "__main__":
    _make(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
