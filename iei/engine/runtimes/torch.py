"""PyTorch: the runtime that computes every checkpoint, on a CPU, a GPU or Apple's mps."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from iei.engine.runtimes import DeviceLost, Input, Outputs
from iei.models.device import cores
from iei.models.load import LoadedModel, load_model
from iei.models.spec import LoadRequest, Modality, ModelSpec

MAX_BATCH_CPU, MAX_BATCH_GPU = 8, 64


def load(request: LoadRequest) -> TorchRuntime:
    """The model of `request`, warm. Raises StartupError, one sentence that says what to do."""
    torch.set_num_threads(request.threads or cores())
    return TorchRuntime(load_model(request), request.max_batch)


class TorchRuntime:
    """Not thread-safe: batches are staged in one buffer."""

    def __init__(self, model: LoadedModel, max_batch: int = 0) -> None:
        """`max_batch` 0: the device's default."""
        self.spec: ModelSpec = model.spec
        self.max_batch = max_batch or (MAX_BATCH_CPU if model.device.type == "cpu" else MAX_BATCH_GPU)
        self._device = model.device
        self._image = model.image

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """One forward, as `Runtime.run`."""
        try:
            with torch.inference_mode():
                return _fetched(self._image(self._staged(batch), outputs))
        except torch.AcceleratorError as error:
            if self._is_lost():
                raise DeviceLost(f"{self.spec.device} is lost: {error}") from error
            raise

    def _staged(self, batch: Sequence[Input]) -> Tensor:
        return torch.from_numpy(np.stack(batch)).to(self._device)

    def _is_lost(self) -> bool:
        """A CUDA context that has failed answers every later call with the same error."""
        try:
            torch.cuda.synchronize(self._device)
        except torch.AcceleratorError:
            return True
        return False


def _fetched(results: dict[str, Tensor]) -> list[Outputs]:
    """Results [B, …] on the device → arrays of each input, in one copy."""
    flat = [value.flatten(1) for value in results.values()]
    host = (flat[0] if len(flat) == 1 else torch.cat(flat, 1)).contiguous().cpu().numpy()
    ends = np.cumsum([value.shape[1] for value in flat]).tolist()
    spans = zip(results.items(), [0, *ends], ends, strict=False)
    places = [(name, tuple(value.shape[1:]), start, end) for (name, value), start, end in spans]
    return [{name: row[start:end].reshape(shape) for name, shape, start, end in places} for row in host]
