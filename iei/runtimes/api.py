"""What runs a model: arrays in, named outputs out. One protocol, one module per library that computes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from iei.models.spec import Modality, ModelSpec

Input = NDArray[Any]
"""A picture, uint8[H, W, 3] (float32 where the geometry has `float_resize`), or a text, int32[L]."""

Outputs = dict[str, NDArray[np.float32]]
"""Output name → float32[dim], or float32[rows, dim] for `patches` and `tokens`; C-contiguous."""


MAX_TOKENS = 16384
"""Most tokens in a batch of texts, padding included."""


class DeviceLost(Exception):
    """This process can't compute any more (its CUDA context is gone): only a new one can."""


class Runtime(Protocol):
    """A loaded model that computes. Not thread-safe: one caller at a time."""

    spec: ModelSpec
    max_batch: int
    """Most inputs in one `run`."""

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """One forward over `batch`: pictures of one shape, or texts of any lengths. One mapping per input, in order.

        Raises whatever the device raises, and `DeviceLost` when nothing will work after it.
        """
        ...
