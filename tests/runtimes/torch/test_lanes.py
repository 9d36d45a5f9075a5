from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch

from iei.runtimes.torch.lanes import Lanes


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 20])
def test_every_input_is_computed_once_and_in_order(threads: int, size: int) -> None:
    parts: list[int] = []

    def double(part: Sequence[int]) -> list[int]:
        parts.append(len(part))
        return [2 * value for value in part]

    assert Lanes(threads).run(double, range(size)) == [2 * value for value in range(size)]
    assert len(parts) == min(threads, size)
    assert max(parts) - min(parts) <= 1


@pytest.mark.parametrize(("size", "expected"), [(1, {4}), (2, {2}), (3, {1}), (4, {1}), (9, {1})])
def test_threads_are_shared_between_the_parts(size: int, expected: set[int]) -> None:
    counts = Lanes(4).run(lambda part: [torch.get_num_threads()] * len(part), range(size))
    assert set(counts) == expected


def test_a_part_that_fails_fails_the_batch() -> None:
    def fail(part: Sequence[int]) -> list[int]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        Lanes(2).run(fail, [1, 2, 3])


def test_a_part_always_has_the_same_thread() -> None:
    lanes = Lanes(4)

    def names(part: Sequence[int]) -> list[str]:
        return [threading.current_thread().name] * len(part)

    four = lanes.run(names, range(4))
    assert len(set(four)) == 4
    for size in (1, 2, 3, 4, 1, 1, 1, 3):
        assert lanes.run(names, range(size)) == four[:size]
