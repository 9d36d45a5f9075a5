"""PyTorch: the runtime that computes every checkpoint, on a CPU, a GPU or Apple's mps."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from iei.errors import StartupError
from iei.machine import cores
from iei.models.spec import POOLED, LoadRequest, Modality, ModelSpec
from iei.runtimes.api import MAX_TOKENS, DeviceLost, Input, Outputs
from iei.runtimes.torch.lanes import Lanes
from iei.runtimes.torch.load import LoadedModel, find_folder, load_model

MAX_BATCH_PER_CORE, MAX_BATCH_GPU = 4, 64


def fetch(request: LoadRequest) -> None:
    """Brings the files of the model of `request` onto this machine. Raises StartupError, as `load` does."""
    find_folder(request)


def load(request: LoadRequest) -> TorchRuntime:
    """The model of `request`, warm. Raises StartupError, one sentence that says what to do."""
    runtime = TorchRuntime(load_model(request), request.max_batch, request.threads)
    runtime.warm_up()
    return runtime


class TorchRuntime:
    """Implements `Runtime`. Not thread-safe: batches are staged in reused buffers."""

    def __init__(self, model: LoadedModel, max_batch: int = 0, threads: int = 0) -> None:
        """`max_batch` 0: the device's default. `threads` 0: as many as there are cores."""
        threads = threads or cores()
        self._device = model.device
        self._lanes = Lanes(threads) if model.device.type == "cpu" else None
        self.max_batch = max_batch or (MAX_BATCH_PER_CORE * threads if self._lanes else MAX_BATCH_GPU)
        self.spec: ModelSpec = replace(model.spec, max_batch=self.max_batch)
        self._image = model.image
        self._text = model.text
        self._staging = Staging(model.device)

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        def forward(part: Sequence[Input]) -> list[Outputs]:
            with torch.inference_mode():
                return self._texts(part, outputs) if modality == "text" else self._pictures(part, outputs)

        try:
            return self._lanes.run(forward, batch) if self._lanes else forward(batch)
        except RuntimeError as error:
            if self._lost():
                raise DeviceLost(f"{self.spec.device} is lost: {error}") from error
            raise

    def _pictures(self, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        assert self._image is not None
        return _fetched(self._image(self._staging.put(batch), outputs))

    def _texts(self, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        assert self._text is not None
        padded = _fetched(self._text(*self._text.batch(batch), outputs))
        return [
            {name: vectors if name in POOLED else vectors[: len(text)] for name, vectors in row.items()}
            for row, text in zip(padded, batch, strict=True)
        ]

    def warm_up(self) -> None:
        """The largest batch, once, where kernels are picked and memory is taken on first use: on a GPU."""
        if self._device.type == "cpu":
            return
        try:
            if self.spec.image:
                picture = np.zeros((*self.spec.image.geometry.size, 3), np.uint8)
                self.run("image", [picture] * self.max_batch, ("mean",))
            if self.spec.text:
                tokens = min(self.spec.text.max_tokens, MAX_TOKENS // self.max_batch)
                self.run("text", [np.zeros(max(1, tokens), np.int32)] * self.max_batch, ("mean",))
        except torch.OutOfMemoryError as error:
            raise StartupError(
                f"A batch of {self.max_batch} does not fit into the memory of {self.spec.device}: lower IEI_MAX_BATCH."
            ) from error

    def _lost(self) -> bool:
        """A CUDA context that has failed answers every later call with the same error."""
        if self._device.type != "cuda":
            return False
        try:
            torch.cuda.synchronize(self._device)
        except RuntimeError:
            return True
        return False


class Staging(threading.local):
    """Inputs side by side in a reused buffer, one for each thread; pinned for a GPU: its copy engine reads it alone."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def put(self, batch: Sequence[Input]) -> Tensor:
        """[B, *shape] of the inputs' own type, on the device. On a CPU, valid until the next call."""
        first = batch[0]
        size = len(batch) * first.nbytes
        if size > self._buffer.numel():
            self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        dtype = torch.from_numpy(np.empty(0, first.dtype)).dtype
        staged = self._buffer[:size].view(dtype).view(len(batch), *first.shape)
        np.stack(batch, out=staged.numpy())
        return staged.to(self._device, non_blocking=True)


def _fetched(results: dict[str, Tensor]) -> list[Outputs]:
    """Results [B, …] on the device → arrays of each input, in one copy."""
    rows = [value.flatten(1) for value in results.values()]
    host = (rows[0] if len(rows) == 1 else torch.cat(rows, 1)).cpu().numpy()
    ends = np.cumsum([row.shape[1] for row in rows]).tolist()
    places = [
        (name, slice(end - row.shape[1], end), tuple(value.shape[1:]))
        for (name, value), row, end in zip(results.items(), rows, ends, strict=True)
    ]
    return [{name: values[place].reshape(shape) for name, place, shape in places} for values in host]
