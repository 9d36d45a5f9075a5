"""Memory of others that a GPU copies from by itself, without a copy to memory of torch's before."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

log = logging.getLogger("iei.engine")

PORTABLE = 1
"""cudaHostRegisterPortable: pinned for all contexts of the process."""


def pin(device: str, memory: npt.NDArray[np.uint8]) -> Callable[[], None] | None:
    """Registers memory with the CUDA driver, which gives all of its pages a place in the machine's memory.

    Args:
        device: `cuda:N`, or another one, for which nothing is done.
        memory: contiguous, and mapped for writing.

    Returns:
        What undoes it, to be called before the memory is unmapped and while nothing is copied from it; None: it is not
        pinned, and the log says why.
    """
    if not device.startswith("cuda"):
        return None
    address = memory.ctypes.data
    driver: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    if error := int(driver.cudaHostRegister(address, memory.nbytes, PORTABLE)):
        log.warning("%d MiB of shared memory can't be pinned: CUDA error %d", memory.nbytes >> 20, error)
        with contextlib.suppress(RuntimeError):  # CUDA keeps the error for the next kernel to be launched: this one
            torch.ones(1, device=device)
        return None

    def unpin() -> None:
        if error := int(driver.cudaHostUnregister(address)):
            log.warning("shared memory can't be unpinned: CUDA error %d", error)

    return unpin


def is_pinned(array: npt.NDArray[np.generic]) -> bool:
    """Whether a GPU can copy from the array by itself."""
    # Only what lies in an arena, contiguous and writable, can be; of other arrays torch makes no tensor, or warns.
    return array.flags.carray and torch.from_numpy(array).is_pinned()
