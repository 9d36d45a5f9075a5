"""Runs one batch through one model; an input that fails does not fail the others of its batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from iei.models.spec import Modality
from iei.runtimes.api import DeviceLost, Input, Outputs, Overlapping

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """One input, and what is wanted of it."""

    modality: Modality
    array: npt.NDArray[np.generic]
    """Pixels [H, W, 3], a JPEG [N] (`iei.encoded`) or token ids [L]."""
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """The model failed on this input alone."""

    message: str


Outcome = Outputs | Failure
Run = Callable[[Modality, Sequence[Input], Collection[str]], Sequence[Outputs]]
"""As `iei.runtimes.api.Model.run`."""


class Pending(NamedTuple):
    """Tasks that have been begun."""

    done: Callable[[], bool]
    """Whether `finish` would not wait for the device."""
    finish: Callable[[], list[Outcome]]
    """As `execute`. To be called once."""


def execute(run: Run, tasks: Sequence[Task]) -> list[Outcome]:
    """Runs `tasks`, which share a modality, as one forward: an outcome for each, in order.

    A batch that fails is halved until the inputs that fail are alone; the others succeed. The union of the wanted
    outputs is computed for the whole batch, so that tasks with different outputs can share it.

    Args:
        run: runs it, and halves of it if it fails.
        tasks: at least one.

    Raises:
        DeviceLost: this process can't compute any more.
    """
    return _computed(lambda: run(*_arguments(tasks)), run, tasks)


def begin(overlapping: Overlapping, run: Run, tasks: Sequence[Task]) -> Pending:
    """Begins `tasks`, which share a modality, as one forward.

    Args:
        overlapping: begins it.
        run: runs halves of it if it fails.
        tasks: at least one. Their arrays must stay as they are until it is finished.

    Raises:
        DeviceLost: this process can't compute any more; so does what finishes it.
    """
    try:
        begun = overlapping.begin(*_arguments(tasks))
    except DeviceLost:
        raise
    except Exception as error:
        fault = _described(error)
        return Pending(lambda: True, lambda: _halves(run, tasks, fault))

    return Pending(begun.done, lambda: _computed(begun.finish, run, tasks))


def _computed(compute: Callable[[], Sequence[Outputs]], run: Run, tasks: Sequence[Task]) -> list[Outcome]:
    """Outcomes of what `compute` returns for all tasks, or else of their halves."""
    try:
        rows = compute()
    except DeviceLost:
        raise
    except Exception as error:
        fault = _described(error)
    else:
        return [_outcome(row, task) for row, task in zip(rows, tasks, strict=True)]
    return _halves(run, tasks, fault)


def _arguments(tasks: Sequence[Task]) -> tuple[Modality, list[Input], set[str]]:
    """What the model is called with."""
    wanted = {name for task in tasks for name in task.outputs}
    return tasks[0].modality, [task.array for task in tasks], wanted


def _halves(run: Run, tasks: Sequence[Task], fault: str) -> list[Outcome]:
    """Outcomes of tasks that failed together.

    To be called outside of `except`: the error's traceback has the batch's memory on the device, which the halves need.
    """
    if len(tasks) == 1:
        log.warning("the model failed on an input of shape %s: %s", tasks[0].array.shape, fault)
        return [Failure(f"the model failed on this input: {fault}")]
    half = len(tasks) // 2
    return execute(run, tasks[:half]) + execute(run, tasks[half:])


def _outcome(row: Outputs, task: Task) -> Outcome:
    outputs = {name: row[name] for name in task.outputs}
    if not all(np.isfinite(vector).all() for vector in outputs.values()):
        return Failure("the model computed values that are not finite (NaN or infinity) for this input")
    return outputs


def _described(error: Exception) -> str:
    """Type and first line."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:200]}"
