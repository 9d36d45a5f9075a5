"""Which runtime loads a checkpoint. A new runtime is a folder beside this file and one row in the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from iei.checkpoints.checkpoint import Checkpoint
from iei.errors import StartupError
from iei.machine import resident_bytes
from iei.models.catalog import LoadRequest
from iei.runtimes.api import Runtime


class RuntimeModule(Protocol):
    """What the module of a row has."""

    def check(self, request: LoadRequest) -> None:
        """Checks what does not depend on the checkpoint, before it is downloaded.

        Raises:
            StartupError: the device or an option can't be had; one sentence that says what to do.
        """

    def load(self, checkpoint: Checkpoint, request: LoadRequest) -> Runtime:
        """Loads the weights.

        Raises:
            StartupError: the checkpoint, the device or an option can't be used; one sentence that says what to do.
        """

    def device_memory(self, device: str) -> int:
        """Bytes that this process has allocated on a device that is not the CPU."""


@dataclass(frozen=True, slots=True)
class RuntimeRow:
    """One runtime."""

    module: str
    """Import path of a `RuntimeModule`. Imported only when the row was chosen: libraries take seconds to import."""
    takes: Callable[[Checkpoint, LoadRequest], bool]
    """Whether it can load this checkpoint as requested. Decides without importing the library."""

    def check(self, request: LoadRequest) -> None:
        """Imports the module and checks `request`. Raises StartupError as the module does."""
        self._imported().check(request)

    def load(self, checkpoint: Checkpoint, request: LoadRequest) -> Runtime:
        """Imports the module and loads `checkpoint` with it. Raises StartupError as the module does."""
        return self._imported().load(checkpoint, request)

    def device_memory(self, device: str) -> int:
        """Imports the module and asks it."""
        return self._imported().device_memory(device)

    def _imported(self) -> RuntimeModule:
        return cast(RuntimeModule, import_module(self.module))


RUNTIMES: Mapping[str, RuntimeRow] = {
    "torch": RuntimeRow("iei.runtimes.torch.load", lambda checkpoint, request: True),
}
"""Name → runtime, the preferred one first."""


def check(request: LoadRequest) -> None:
    """Finds out whether any runtime can do what is requested, before minutes are spent on a download.

    Raises:
        StartupError: none can; what the first of them said.
    """
    faults: list[StartupError] = []
    for row in RUNTIMES.values():
        try:
            return row.check(request)
        except StartupError as error:
            faults.append(error)
    raise faults[0]


def device_memory(device: str) -> int:
    """Bytes that this process has allocated on a device, in all of its runtimes. On the CPU, its resident memory."""
    if device == "cpu":
        return resident_bytes(os.getpid())
    return sum(row.device_memory(device) for row in RUNTIMES.values())


def select(checkpoint: Checkpoint, request: LoadRequest) -> RuntimeRow:
    """Returns the first row of `RUNTIMES` that takes the checkpoint as requested.

    Raises:
        StartupError: none does.
    """
    for row in RUNTIMES.values():
        if row.takes(checkpoint, request):
            return row
    raise StartupError(
        f"{request.entry.id} (model_type {checkpoint.model_type}) can't be loaded on {request.device} by any of the "
        f"runtimes {', '.join(RUNTIMES)}: choose another device (IEI_DEVICE) or model."
    )
