"""An image model as transformers' documentation uses it: what the servers of this folder have in common.

It is not made slow on purpose: the image processor is the faster one of transformers (torchvision), pictures of a
request are one batch, and threads of torch are what the set-up says.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

MODEL = os.environ["BENCHMARK_MODEL"]
THREADS = int(os.environ.get("BENCHMARK_THREADS", "0"))
"""Of torch in each process that has a model; 0: as many as torch takes by itself."""


class Decoder:
    """Pictures in base64 → what the model takes."""

    def __init__(self) -> None:
        self._processor = AutoImageProcessor.from_pretrained(MODEL)

    def __call__(self, pictures: str | Sequence[str]) -> torch.Tensor:
        """float32[n, 3, height, width] of one picture or several."""
        files = [pictures] if isinstance(pictures, str) else pictures
        images = [Image.open(io.BytesIO(base64.b64decode(file))).convert("RGB") for file in files]
        pixels: torch.Tensor = self._processor(images=images, return_tensors="pt")["pixel_values"]
        return pixels


class Model:
    """What a decoder makes → vectors: the mean over all tokens, or what a dual tower projects."""

    def __init__(self) -> None:
        if THREADS:
            torch.set_num_threads(THREADS)
        self._model = AutoModel.from_pretrained(MODEL, dtype=torch.float32).eval()
        self._project = getattr(self._model, "get_image_features", None)

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32[n, dimension]."""
        if self._project:
            projected: torch.Tensor = self._project(pixel_values=pixels).pooler_output
            return projected
        tokens: torch.Tensor = self._model(pixel_values=pixels).last_hidden_state
        return tokens.mean(dim=1)

    def embed_requests(self, requests: Sequence[torch.Tensor]) -> list[list[list[float]]]:
        """One forward for the pictures of several requests → the vectors of each."""
        vectors = self(torch.cat(list(requests)))
        return [part.tolist() for part in torch.split(vectors, [len(each) for each in requests])]
