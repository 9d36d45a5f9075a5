from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iei.runtimes.torch import staging
from iei.runtimes.torch.pinning import PORTABLE, is_pinned, pin
from iei.runtimes.torch.staging import Staging

MEMORY = np.frombuffer(mmap.mmap(-1, 8192), np.uint8)


class Driver:
    """What is called of the CUDA runtime. `registered` has address → size and flags."""

    def __init__(self, error: int = 0) -> None:
        self.registered: dict[int, tuple[int, int]] = {}
        self._error = error

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:
        if not self._error:
            self.registered[address] = nbytes, flags
        return self._error

    def cudaHostUnregister(self, address: int) -> int:
        return 0 if self.registered.pop(address, None) else 713  # cudaErrorHostMemoryNotRegistered


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    return driver


def test_memory_is_pinned_until_it_is_not(driver: Driver) -> None:
    unpin = pin("cuda:0", MEMORY)
    assert unpin
    assert driver.registered == {MEMORY.ctypes.data: (8192, PORTABLE)}
    unpin()
    assert not driver.registered


def test_a_cpu_pins_nothing(driver: Driver) -> None:
    assert pin("cpu", MEMORY) is None
    assert not driver.registered


def test_what_the_driver_refuses_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    launched = []

    def ones(size: int, device: str) -> None:
        launched.append(device)
        raise RuntimeError("CUDA error: operation not supported")  # the driver's error, which is taken from it so

    monkeypatch.setattr(torch.cuda, "cudart", lambda: Driver(801))
    monkeypatch.setattr(torch, "ones", ones)
    assert pin("cuda:1", MEMORY) is None
    assert "can't be pinned: CUDA error 801" in caplog.text
    assert launched == ["cuda:1"]


def test_inputs_in_pinned_memory_are_copied_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pinned, other = (list(rng.integers(0, 256, (3, 4, 4, 3), np.uint8)) for _ in range(2))
    monkeypatch.setattr(staging, "is_pinned", lambda array: any(array is each for each in pinned))
    direct = Staging(torch.device("cpu"), direct=True)
    stacked = []

    def stack(arrays: Sequence[NDArray[np.uint8]], out: NDArray[np.uint8]) -> None:
        stacked.append(len(arrays))
        out[:] = arrays

    monkeypatch.setattr(np, "stack", stack)
    for batch in (pinned, other, [*pinned[:2], other[0]]):
        np.testing.assert_array_equal(direct.put(batch).numpy(), batch)
    assert stacked == [3, 3]


def test_inputs_of_different_shapes_are_an_error_wherever_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "is_pinned", lambda array: True)
    with pytest.raises(ValueError, match="shape"):
        Staging(torch.device("cpu"), direct=True).put([np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 3), np.uint8)])


def test_ordinary_reversed_and_read_only_memory_is_not_pinned() -> None:
    array = np.zeros(3, np.uint8)
    assert not is_pinned(array)
    assert not is_pinned(array[::-1])
    array.flags.writeable = False
    assert not is_pinned(array)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_copies_from_shared_memory_that_is_pinned() -> None:
    picture = MEMORY[:48].reshape(4, 4, 3)
    picture[:] = np.arange(48).reshape(4, 4, 3)
    unpin = pin("cuda:0", MEMORY)
    assert unpin
    assert is_pinned(picture)
    np.testing.assert_array_equal(Staging(torch.device("cuda:0"), direct=True).put([picture] * 2).cpu(), [picture] * 2)
    unpin()
    assert not is_pinned(picture)
