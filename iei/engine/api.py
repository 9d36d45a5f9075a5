"""What every engine offers to a worker, whether it lives in its own process or in this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from iei.models.spec import Modality, ModelSpec


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one input."""

    outputs: dict[str, npt.NDArray[np.float32]]
    """float32[dim] of pooled outputs, float32[rows, dim] of the others."""
    queue_s: float
    """From submission until a batch took it."""
    inference_s: float
    """The forward, shared by its batch."""


class Engine(Protocol):
    """Runs models. Safe to use from many tasks of one event loop."""

    @property
    def default(self) -> ModelSpec:
        """The model that is there from the start, known even before `start`."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a job sent now would be run: the engine is there, has its model, and answers."""

    async def start(self) -> None:
        """Called once, on the event loop that will use it."""

    async def stop(self) -> None: ...

    async def describe(self, model: str, *, deadline: float) -> ModelSpec:
        """The model of that served name, loaded first if it must be.

        Raises:
            Overloaded: it is not there by the deadline, after which nobody wants the answer.
            Unhealthy: it can't be loaded, or the engine is gone.
        """
        ...

    async def run(
        self,
        spec: ModelSpec,
        modality: Modality,
        array: npt.NDArray[np.generic],
        outputs: Sequence[str],
        *,
        deadline: float,
    ) -> Result:
        """One input through the model, batched with whatever else waits.

        Args:
            array: pixels uint8[H, W, 3] (float32 where the geometry says so), or token ids int32[L].
            outputs: names out of the tower's `outputs`.
            deadline: `time.monotonic()` after which nobody wants the answer.

        Raises:
            BackendFailed: the model failed on this very input.
            Overloaded: the deadline passed while it waited.
            Unhealthy: the engine is gone, or died twice while it ran this input.
        """
        ...
