"""Arrays of single inputs ↔ tensors of a batch, with one copy in each direction."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iei.runtimes.api import Input, Outputs
from iei.runtimes.torch.pinning import is_pinned


class Staging(threading.local):
    """Stacks inputs in a reused buffer, one for each thread, which for a GPU is pinned: copies then need no CPU.

    Args:
        device: to which inputs are brought.
        direct: whether inputs may lie in pinned memory; those that do are not stacked, but copied one by one.
    """

    def __init__(self, device: torch.device, *, direct: bool = False) -> None:
        self._device = device
        self._direct = direct
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def put(self, batch: Sequence[Input]) -> Tensor:
        """Copies inputs of one shape and type to the device.

        On a GPU the copy goes on when this returns: inputs in pinned memory must stay until results are there.

        Returns:
            [B, *shape] of the inputs' type. On a CPU, valid until the same thread's next call.

        Raises:
            ValueError: the shapes differ.
        """
        first = batch[0]
        if self._direct and all(each.shape == first.shape and is_pinned(each) for each in batch):
            return self._copied(batch)
        size = len(batch) * first.nbytes
        if size > self._buffer.numel():
            self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        dtype = torch.from_numpy(np.empty(0, first.dtype)).dtype
        staged = self._buffer[:size].view(dtype).view(len(batch), *first.shape)
        np.stack(batch, out=staged.numpy())
        return staged.to(self._device, non_blocking=True)

    def _copied(self, batch: Sequence[Input]) -> Tensor:
        rows = [torch.from_numpy(each) for each in batch]
        there = torch.empty((len(rows), *rows[0].shape), dtype=rows[0].dtype, device=self._device)
        for place, row in zip(there, rows, strict=True):
            place.copy_(row, non_blocking=True)
        return there


Places = list[tuple[str, slice, tuple[int, ...]]]
"""For each output, its name, its columns among those of all outputs, and the shape of a row."""


def to_arrays(results: dict[str, Tensor]) -> list[Outputs]:
    """Returns the outputs of each input, from results of a batch: output name → float32 [B, …] on the device."""
    joined, places = join(results)
    return split(joined.cpu().numpy(), places)


def join(results: dict[str, Tensor]) -> tuple[Tensor, Places]:
    """Makes one tensor [B, N] of the results of a batch, on their device, so that one copy brings all of them."""
    rows = [value.flatten(1) for value in results.values()]
    ends = np.cumsum([row.shape[1] for row in rows]).tolist()
    places = [
        (name, slice(end - row.shape[1], end), tuple(value.shape[1:]))
        for (name, value), row, end in zip(results.items(), rows, ends, strict=True)
    ]
    return rows[0] if len(rows) == 1 else torch.cat(rows, 1), places


def split(host: npt.NDArray[np.float32], places: Places) -> list[Outputs]:
    """Reverses `join`, on the CPU: the outputs of each input, without a copy."""
    return [{name: values[place].reshape(shape) for name, place, shape in places} for values in host]
