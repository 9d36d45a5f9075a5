"""One batch through one runtime: everybody gets an answer, and a bad input costs nobody else theirs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iei.models.spec import Modality
from iei.runtimes.api import DeviceLost, Runtime

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """What one job wants from a forward."""

    array: npt.NDArray[np.generic]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """The model failed on this input, alone."""

    message: str


Outcome = dict[str, npt.NDArray[np.float32]] | Failure


def execute(runtime: Runtime, modality: Modality, tasks: Sequence[Task]) -> list[Outcome]:
    """Runs `tasks` as one forward. A batch that fails is split until the culprit is alone; the others succeed.

    Outputs are computed for the batch as a whole (their union) and handed out per task: what somebody wants never
    splits a batch.

    Raises:
        DeviceLost: this process can't compute any more.
    """
    wanted = {name for task in tasks for name in task.outputs}
    try:
        rows = runtime.run(modality, [task.array for task in tasks], wanted)
    except DeviceLost:
        raise
    except Exception as error:
        if len(tasks) == 1:
            log.warning("the model failed on an input of shape %s: %s", tasks[0].array.shape, error)
            return [Failure(f"the model failed on this input: {type(error).__name__}: {_first_line(error)}")]
        half = len(tasks) // 2
        return execute(runtime, modality, tasks[:half]) + execute(runtime, modality, tasks[half:])
    return [_outcome(row, task) for row, task in zip(rows, tasks, strict=True)]


def _outcome(row: dict[str, npt.NDArray[np.float32]], task: Task) -> Outcome:
    outputs = {name: row[name] for name in task.outputs}
    if not all(np.isfinite(vector).all() for vector in outputs.values()):
        return Failure("the model computed values that are not finite (NaN or infinity) for this input")
    return outputs


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:200]
