"""The interfaces of this package: `Model`, which the engine runs, and `Runtime`, which a library's folder provides."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from iei.models.spec import Contrast, Modality, ModelSpec, Quality

Input = NDArray[Any]
"""A picture, uint8[H, W, 3] (float32 where the geometry has `float_resize`), a JPEG (`iei.encoded`) for a side that
decodes, or a text, int32[L]."""

Outputs = dict[str, NDArray[np.float32]]
"""Output name → float32[dim], or float32[rows, dim] for `patches` and `tokens`; C-contiguous."""

MAX_TOKENS = 16384
"""Most tokens in a batch of texts, padding included."""


class DeviceLost(Exception):
    """This process can't compute any more (its CUDA context has failed): only a new process can."""


class Model(Protocol):
    """A loaded model, described. Not thread-safe: one caller at a time."""

    @property
    def spec(self) -> ModelSpec:
        """What the model is and gives; `spec.max_batch` is the most inputs in one `run`."""

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """Computes one forward.

        Args:
            modality: a side that the model has.
            batch: pictures of one shape, JPEGs, or texts of any lengths.
            outputs: names of what to compute, of those that the side offers.

        Returns:
            One mapping per input, in order, with exactly the outputs that were asked for.

        Raises:
            DeviceLost: nothing will work in this process after it.
            Exception: any other error of the device or the library; other batches can still be run.
        """


class Begun(Protocol):
    """A batch that the device computes, or will compute after those that were begun before it."""

    def done(self) -> bool:
        """Whether `finish` would not wait: the batch is computed, or has failed. Raises nothing."""

    def finish(self) -> list[Outputs]:
        """Waits for what `Model.run` would have returned. To be called once.

        Raises:
            DeviceLost: nothing will work in this process after it.
            Exception: any other error of the device or the library; other batches can still be run.
        """


@runtime_checkable
class Overlapping(Protocol):
    """What a model, or a runtime, has besides if a batch can be brought to the device while it computes another."""

    def begin(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> Begun:
        """Begins what `Model.run` does, and does not wait for the device.

        Batches are computed in the order in which they were begun. The arrays of `batch` must stay as they are until
        it is finished. Arguments and errors are those of `Model.run`.
        """


@runtime_checkable
class Parallel(Protocol):
    """What a model, or a runtime, has besides if it computes several batches at the same time."""

    def lanes(self, modality: Modality, array: Input) -> int:
        """How many batches of inputs like `array` it computes at the same time, each on its part of the cores.

        1: only `Model.run` may be called for them. It may change from batch to batch.
        """

    def run_on_lane(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """As `Model.run`, on one lane: as many threads as there are lanes may call it, while none calls `Model.run`."""


@dataclass(frozen=True, slots=True)
class ImageSide:
    """What a runtime offers for pictures."""

    outputs: tuple[str, ...]
    """Names of outputs, `tokens` and `patches` among them."""
    stride: int
    """Pixels between neighbouring patches."""
    any_size: bool
    """Whether it also computes other sizes than the geometry's, in multiples of `stride`."""
    decodes: bool = False
    """Whether it takes JPEGs, too."""


@dataclass(frozen=True, slots=True)
class TextSide:
    """What a runtime offers for texts."""

    outputs: tuple[str, ...]
    """Names of outputs, `tokens` among them."""
    pooling: str
    """The output that the checkpoint was trained for."""
    max_tokens: int
    """Longest text, special tokens included."""


class Runtime(Protocol):
    """One checkpoint, loaded by one library. Not thread-safe: one caller at a time.

    `iei.runtimes.loading` turns it into a `Model`: it measures the outputs and describes the model.
    """

    @property
    def device(self) -> str:
        """Where it computes, for example `cuda:0`."""

    @property
    def dtype(self) -> str:
        """Precision of weights and forward: one of `iei.settings.Dtype`, or a name that the runtime adds."""

    @property
    def software(self) -> str:
        """Name and version of the library, with its kernels in brackets. Final after `warm_up`."""

    @property
    def parameters(self) -> int:
        """How many numbers the checkpoint's weights are."""

    @property
    def max_batch(self) -> int:
        """Most inputs in one `run`."""

    @property
    def image(self) -> ImageSide | None:
        """What it offers for pictures; None if the checkpoint takes none."""

    @property
    def text(self) -> TextSide | None:
        """What it offers for texts; None if the checkpoint takes none."""

    @property
    def contrast(self) -> Contrast | None:
        """How the checkpoint scores its pictures and texts; None if it does not."""

    @property
    def quality(self) -> Quality | None:
        """How near its vectors are to those of float32; None if that was not measured."""

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """As `Model.run`."""

    def warm_up(self) -> None:
        """Does what a runtime does once before it serves. Called after one input of each side has been computed.

        Raises:
            StartupError: the largest batch does not fit into memory.
        """
