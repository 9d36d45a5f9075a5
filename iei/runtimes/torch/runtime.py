"""The PyTorch runtime: computes every supported checkpoint, on a CPU, a GPU or Apple's mps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iei.encoded import is_encoded
from iei.errors import StartupError
from iei.machine import cores
from iei.models.spec import POOLED, Contrast, Modality
from iei.runtimes.api import MAX_TOKENS, DeviceLost, Input, Outputs
from iei.runtimes.torch.compiled import compiled
from iei.runtimes.torch.decoding import Decoding
from iei.runtimes.torch.device import Placement
from iei.runtimes.torch.graphs import Graphs, Recorder, trials
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

    def __init__(
        self,
        towers: Towers,
        placement: Placement,
        *,
        max_batch: int = 0,
        threads: int = 0,
        recorder: Recorder | None = None,
        compile_in: Path | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        """Takes loaded towers.

        Args:
            towers: on the placement's device.
            placement: where and how they compute.
            max_batch: most inputs in one forward; 0 for the device's default.
            threads: CPU threads of one forward; 0 for as many as there are cores.
            recorder: of graphs of the image side. None: it is computed eagerly.
            compile_in: where the kernels of a compiled image side are kept, which is recorded then; None: it is not
                compiled.
            decoding: makes pictures of JPEGs, for the image side. None: it takes pixels only.
        """
        threads = threads or cores()
        self._module, self._image_model, self._text_model, self.contrast = towers
        self._placement = placement
        self._lanes = Lanes(threads) if placement.device.type == "cpu" else None
        self._staging = Staging(placement.device, direct=placement.device.type == "cuda")
        self._packed = False
        self._graphs = Graphs(self._image_model.hidden, recorder) if self._image_model and recorder else None
        self._compile_in = compile_in
        self._decoding = decoding
        self.device = str(placement.device)
        self.dtype = str(placement.dtype).removeprefix("torch.")
        self.max_batch = max_batch or (MAX_BATCH_PER_CORE * threads if self._lanes else MAX_BATCH_GPU)
        # Counted now: `warm_up` may put the linear layers' weights where torch does not list them.
        self.parameters = sum(weight.numel() for weight in self._module.parameters())
        self.image = replace(self._image_model.side, decodes=bool(decoding)) if self._image_model else None
        self.text = self._text_model.side if self._text_model else None

    @property
    def software(self) -> str:
        """Version of torch, the implementation of attention, and what else has changed the kernels."""
        kernels = [self._module.config._attn_implementation, *(["oneDNN"] if self._packed else [])]
        if self._graphs and self._graphs.recorded:
            kernels += [*(["compiled"] if self._compile_in else []), "CUDA graphs"]
        if self._decoding:
            kernels.append(self._decoding.software)
        return f"torch {torch.__version__.partition('+')[0]} ({', '.join(kernels)})"

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """As `iei.runtimes.api.Runtime.run`. Raises RuntimeError or ValueError for batches that can't be computed."""

        def forward(part: Sequence[Input]) -> list[Outputs]:
            with torch.inference_mode():
                results = self.compute(modality, self.upload(modality, part, self._staging), outputs)
                return self.without_padding(modality, to_arrays(results), part)

        with self.noticing_loss():
            return self._lanes.run(forward, batch) if self._lanes else forward(batch)

    def upload(self, modality: Modality, batch: Sequence[Input], staging: Staging) -> tuple[Tensor, ...]:
        """Brings a batch to the device: what `compute` takes."""
        if modality == "text":
            assert self._text_model is not None
            return self._text_model.batch(batch)
        if self._decoding and is_encoded(modality, batch[0]):
            return (self._decoding(batch),)
        return (staging.put(batch),)

    def compute(self, modality: Modality, inputs: tuple[Tensor, ...], outputs: Collection[str]) -> dict[str, Tensor]:
        """Computes the outputs of a batch: name → float32 [B, …], on the device."""
        if modality == "text":
            assert self._text_model is not None
            results: dict[str, Tensor] = self._text_model(*inputs, outputs)
            return results
        assert self._image_model is not None
        hidden = (self._graphs or self._image_model.hidden)(*inputs)
        return self._image_model.outputs(hidden, outputs)

    @staticmethod
    def without_padding(modality: Modality, rows: list[Outputs], batch: Sequence[Input]) -> list[Outputs]:
        """Leaves out the tokens of texts that are none of theirs."""
        if modality == "image":
            return rows
        return [
            {name: vectors if name in POOLED else vectors[: len(text)] for name, vectors in row.items()}
            for row, text in zip(rows, batch, strict=True)
        ]

    @contextmanager
    def noticing_loss(self) -> Iterator[None]:
        """Raises DeviceLost for an error after which the device answers nothing any more."""
        try:
            yield
        except RuntimeError as error:
            if self._lost():
                raise DeviceLost(f"{self.device} is lost: {error}") from error
            raise

    def warm_up(self) -> None:
        """On a CPU, packs the linear layers. Elsewhere, computes the largest batch once, as the first is slow.

        Then it records graphs, where there is a recorder.

        Raises:
            StartupError: the largest batch does not fit into the device's memory, or the device is lost.
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
        if self._graphs:
            self._record(self._graphs)

    def _record(self, graphs: Graphs) -> None:
        assert self._image_model is not None
        model, side = self._image_model, self._image_model.side
        kind = np.float32 if model.geometry.float_resize else np.uint8
        work = compiled(model.hidden, self._compile_in) if self._compile_in else None
        with torch.inference_mode():
            pixels = self._staging.put(
                [picture.astype(kind) for picture in trials(self.max_batch + 1, *model.geometry.size)]
            )
            graphs.record(pixels, partial(model.outputs, names=side.outputs), self._placement.dtype, work)
        if self._lost():
            raise StartupError(f"{self.device} was lost while graphs were recorded: set IEI_GPU_FORWARD=eager.")

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
            # Not the whole device: another thread may be recording a graph, on a stream that can't be waited for.
            torch.cuda.current_stream(self._placement.device).synchronize()
        except RuntimeError:
            return True
        return False
