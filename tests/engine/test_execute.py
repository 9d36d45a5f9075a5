from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Sequence

import numpy as np
import pytest

from iei.engine.execute import Failure, Outcome, Task, begin, execute
from iei.models.spec import Modality
from iei.runtimes.api import DeviceLost, Input, Outputs
from tests.engine.runtimes_for_tests import KnownBegun, KnownRuntime, OverlappingRuntime, picture

CULPRIT = 66


def fails_on_the_culprit(batch: Sequence[Input]) -> None:
    if any((each == CULPRIT).all() for each in batch):
        raise RuntimeError("no kernel for this picture\nand a long story")


def tasks(*values: int, outputs: tuple[str, ...] = ("mean",)) -> list[Task]:
    return [Task("image", picture(value), outputs) for value in values]


def test_each_task_gets_the_outputs_that_it_wanted_from_one_forward() -> None:
    runtime = KnownRuntime()
    mean, both = execute(runtime.run, [*tasks(1), *tasks(2, outputs=("tokens", "mean"))])
    assert runtime.batches == [2]
    assert isinstance(mean, dict)
    assert list(mean) == ["mean"]
    assert isinstance(both, dict)
    assert list(both) == ["tokens", "mean"]
    np.testing.assert_array_equal(both["mean"], [2, 2, 2])


@pytest.mark.parametrize("place", range(5))
def test_a_failing_batch_is_split_until_the_culprit_is_alone(place: int) -> None:
    values = [1, 2, 3, 4]
    values.insert(place, CULPRIT)
    outcomes = execute(KnownRuntime(fails_on_the_culprit).run, tasks(*values))
    for value, outcome in zip(values, outcomes, strict=True):
        if value == CULPRIT:
            assert isinstance(outcome, Failure)
            assert outcome.message.endswith("RuntimeError: no kernel for this picture")
        else:
            assert isinstance(outcome, dict)
            np.testing.assert_array_equal(outcome["mean"], [value] * 3)


class Memory:
    """What a forward allocates."""


class FailsOnMany(OverlappingRuntime):
    """Fails on more than one picture. `kept` has how many earlier forwards had memory left at each one's start."""

    def __init__(self) -> None:
        super().__init__(self._forward)
        self.kept: list[int] = []
        self._memories: list[weakref.ref[Memory]] = []

    def _forward(self, batch: Sequence[Input]) -> None:
        self.kept.append(sum(memory() is not None for memory in self._memories))
        memory = Memory()
        self._memories.append(weakref.ref(memory))
        if len(batch) > 1:
            raise RuntimeError("out of memory")


class FailsToBegin(FailsOnMany):
    def begin(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> KnownBegun:
        self._forward(batch)
        return super().begin(modality, batch, outputs)


@pytest.mark.parametrize(
    ("model", "run"),
    [
        (FailsOnMany(), lambda model, tasks: execute(model.run, tasks)),
        (FailsOnMany(), lambda model, tasks: begin(model, model.run, tasks).finish()),
        (FailsToBegin(), lambda model, tasks: begin(model, model.run, tasks).finish()),
    ],
    ids=["run", "finish", "begin"],
)
def test_halves_have_the_memory_of_the_batch_that_failed(
    model: FailsOnMany, run: Callable[[FailsOnMany, list[Task]], list[Outcome]]
) -> None:
    assert all(isinstance(outcome, dict) for outcome in run(model, tasks(1, 2, 3, 4)))
    assert model.kept == [0] * 7


def test_values_that_are_not_finite_are_a_failure_of_that_input_alone() -> None:
    class NotFinite(KnownRuntime):
        def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
            return [{"mean": np.array([1, np.nan if value[0, 0, 0] == CULPRIT else 1], np.float32)} for value in batch]

    good, bad = execute(NotFinite().run, tasks(1, CULPRIT))
    assert isinstance(good, dict)
    assert isinstance(bad, Failure)
    assert "not finite" in bad.message


def test_a_lost_device_is_not_blamed_on_an_input() -> None:
    def lose(batch: Sequence[Input]) -> None:
        raise DeviceLost("the context is gone")

    with pytest.raises(DeviceLost):
        execute(KnownRuntime(lose).run, tasks(1, 2))
