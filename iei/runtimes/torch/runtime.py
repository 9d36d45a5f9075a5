"""The PyTorch runtime: computes every supported checkpoint, on a CPU, a GPU or Apple's mps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iei.errors import StartupError
from iei.machine import cores
from iei.models.spec import POOLED, Contrast, Modality
from iei.runtimes.api import MAX_TOKENS, DeviceLost, Input, Outputs
from iei.runtimes.torch.device import Placement
from iei.runtimes.torch.lanes import Lanes
from iei.runtimes.torch.onednn import pack_linears
from iei.runtimes.torch.staging import Staging, to_arrays
from iei.runtimes.torch.text_model import TextModel
from iei.runtimes.torch.vision_model import VisionModel

MAX_BATCH_PER_CORE, MAX_BATCH_GPU = 4, 64


class Towers(NamedTuple):
    """A checkpoint's transformers model and the sides that compute with it; at least one."""

    module: Any
    """The transformers model."""
    image: VisionModel | None = None
    text: TextModel | None = None
    contrast: Contrast | None = None
    """How the sides' vectors are scored, where there are two."""


class TorchRuntime:
    """Implements `iei.runtimes.api.Runtime`. Not thread-safe: batches are copied into reused buffers."""

    quality = None

    def __init__(self, towers: Towers, placement: Placement, *, max_batch: int = 0, threads: int = 0) -> None:
        """Takes loaded towers.

        Args:
            towers: on the placement's device.
            placement: where and how they compute.
            max_batch: most inputs in one forward; 0 for the device's default.
            threads: CPU threads of one forward; 0 for as many as there are cores.
        """
        threads = threads or cores()
        self._module, self._image_model, self._text_model, self.contrast = towers
        self._placement = placement
        self._lanes = Lanes(threads) if placement.device.type == "cpu" else None
        self._staging = Staging(placement.device)
        self._packed = False
        self.device = str(placement.device)
        self.dtype = str(placement.dtype).removeprefix("torch.")
        self.max_batch = max_batch or (MAX_BATCH_PER_CORE * threads if self._lanes else MAX_BATCH_GPU)
        # Counted now: `warm_up` may put the linear layers' weights where torch does not list them.
        self.parameters = sum(weight.numel() for weight in self._module.parameters())
        self.image = self._image_model.side if self._image_model else None
        self.text = self._text_model.side if self._text_model else None

    @property
    def software(self) -> str:
        """Version of torch, the implementation of attention, and whether oneDNN computes the linear layers."""
        kernels = [self._module.config._attn_implementation, *(["oneDNN"] if self._packed else [])]
        return f"torch {torch.__version__.partition('+')[0]} ({', '.join(kernels)})"

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """As `iei.runtimes.api.Runtime.run`. Raises RuntimeError or ValueError for batches that can't be computed."""

        def forward(part: Sequence[Input]) -> list[Outputs]:
            with torch.inference_mode():
                return self._texts(part, outputs) if modality == "text" else self._pictures(part, outputs)

        try:
            return self._lanes.run(forward, batch) if self._lanes else forward(batch)
        except RuntimeError as error:
            if self._lost():
                raise DeviceLost(f"{self.device} is lost: {error}") from error
            raise

    def _pictures(self, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        assert self._image_model is not None
        return to_arrays(self._image_model(self._staging.put(batch), outputs))

    def _texts(self, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        assert self._text_model is not None
        padded = to_arrays(self._text_model(*self._text_model.batch(batch), outputs))
        return [
            {name: vectors if name in POOLED else vectors[: len(text)] for name, vectors in row.items()}
            for row, text in zip(padded, batch, strict=True)
        ]

    def warm_up(self) -> None:
        """On a CPU, packs the linear layers. Elsewhere, computes the largest batch once, as the first is slow.

        Raises:
            StartupError: the largest batch does not fit into the device's memory.
        """
        if self._placement.device.type == "cpu":
            self._packed = self._placement.dtype == torch.float32 and pack_linears(self._module, self._probe)
            return
        try:
            if self._image_model:
                picture = np.zeros((*self._image_model.geometry.size, 3), np.uint8)
                self.run("image", [picture] * self.max_batch, ("mean",))
            if self.text:
                tokens = min(self.text.max_tokens, MAX_TOKENS // self.max_batch)
                self.run("text", [np.zeros(max(1, tokens), np.int32)] * self.max_batch, ("mean",))
        except torch.OutOfMemoryError as error:
            raise StartupError(
                f"A batch of {self.max_batch} does not fit into the memory of {self.device}: lower IEI_MAX_BATCH."
            ) from error

    def _probe(self) -> list[Tensor]:
        """Computes all outputs for one noisy picture and one short text."""
        results: list[Tensor] = []
        if self._image_model:
            noise = torch.Generator().manual_seed(0)
            size = self._image_model.geometry.size
            pixels = torch.randint(0, 256, (1, *size, 3), generator=noise).to(torch.float32)
            results += self._image_model(pixels, self._image_model.side.outputs).values()
        if self._text_model:
            text = self._text_model.batch([np.arange(8, dtype=np.int32)])
            results += self._text_model(*text, self._text_model.side.outputs).values()
        return results

    def _lost(self) -> bool:
        """Returns whether a CUDA context has failed: it then answers every later call with the same error."""
        if self._placement.device.type != "cuda":
            return False
        try:
            torch.cuda.synchronize(self._placement.device)
        except RuntimeError:
            return True
        return False
