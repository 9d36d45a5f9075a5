"""What every engine offers to a worker, whether it runs in a process of its own or in this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from iei.engine.answers import Forward
from iei.models.spec import Modality, ModelSpec
from iei.runtimes.api import Outputs


@dataclass(frozen=True, slots=True)
class Result:
    """The outputs of one input, and what was measured of their forward."""

    outputs: Outputs
    """float32[dim] of pooled outputs, float32[rows, dim] of the others."""
    forward: Forward


class Engine(Protocol):
    """Runs models. Safe to use from many tasks of one event loop."""

    @property
    def default(self) -> ModelSpec:
        """The model that is loaded from the start; known even before `start`."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a job sent now would be run: an engine is connected, has its model, and answers."""
        ...

    @property
    def shared_bytes(self) -> int:
        """Memory shared with engines that inputs are in now."""
        ...

    async def start(self) -> None:
        """Starts the engine, or connects to it. Called once, on the event loop that will use it."""

    async def stop(self) -> None:
        """Stops it. Jobs that have not been answered fail."""

    async def describe(self, model: str, *, deadline: float) -> ModelSpec:
        """The description of the model with that served name, which is loaded first if needed.

        Args:
            model: a name out of the catalog.
            deadline: `time.monotonic()` after which the answer is not needed.

        Raises:
            Overloaded: the model is not loaded by the deadline.
            Unhealthy: it can't be loaded, or the engine is gone.
        """
        ...

    async def run(
        self,
        spec: ModelSpec,
        modality: Modality,
        array: npt.NDArray[np.generic],
        shapes: Mapping[str, tuple[int, ...]],
        *,
        deadline: float,
    ) -> Result:
        """Runs one input through the model, batched with whatever else waits.

        Args:
            spec: the model, as `describe` gave it.
            modality: of the input.
            array: pixels uint8[H, W, 3] (float32 if the geometry has `float_resize`), token ids int32[L], or a JPEG
                (`iei.encoded`) if the model's image side decodes.
            shapes: wanted output → its shape for this input, as `output_shapes` tells it: (dim,) of pooled outputs,
                (rows, dim) of `patches` and `tokens`.
            deadline: `time.monotonic()` after which the answer is not needed.

        Raises:
            BackendFailed: the model failed on this very input.
            Overloaded: the deadline passed while it waited.
            Unhealthy: the engine is gone, or several died while they ran this input.
        """
        ...
