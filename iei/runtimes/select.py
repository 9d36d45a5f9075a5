"""Which runtime loads a checkpoint. A new runtime is a folder beside this file and one row in the table."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from iei.checkpoints.checkpoint import Checkpoint
from iei.errors import StartupError
from iei.machine import not_installed, resident_bytes
from iei.models.catalog import LoadRequest
from iei.runtimes.api import Runtime
from iei.runtimes.openvino.supported import refusal

log = logging.getLogger("iei.engine")

T = TypeVar("T")


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

    def pin(self, device: str, memory: npt.NDArray[np.uint8]) -> Callable[[], None] | None:
        """Has a device copy from `memory` by itself; returns what undoes it, or None if it can't."""


@dataclass(frozen=True, slots=True)
class RuntimeRow:
    """One runtime."""

    module: str
    """Import path of a `RuntimeModule`. Imported only when the row was chosen: libraries take seconds to import."""
    refuses: Callable[[LoadRequest, Checkpoint | None], str | None]
    """Why it can't load this checkpoint (None: not known yet) as requested; None if it can. Decides without importing
    the library."""

    def check(self, request: LoadRequest) -> None:
        """Imports the module and checks `request`. Raises StartupError as the module does."""
        self._imported().check(request)

    def load(self, checkpoint: Checkpoint, request: LoadRequest) -> Runtime:
        """Imports the module and loads `checkpoint` with it. Raises StartupError as the module does."""
        return self._imported().load(checkpoint, request)

    def device_memory(self, device: str) -> int:
        """Imports the module and asks it."""
        return self._imported().device_memory(device)

    def pin(self, device: str, memory: npt.NDArray[np.uint8]) -> Callable[[], None] | None:
        """Imports the module and has it pin `memory`."""
        return self._imported().pin(device, memory)

    def _imported(self) -> RuntimeModule:
        return cast(RuntimeModule, import_module(self.module))


def _refusal_of_torch(request: LoadRequest, checkpoint: Checkpoint | None) -> str | None:
    """Why torch can't load a checkpoint; whatever else is wrong with it or the request, torch itself explains."""
    if missing := not_installed("torch", "transformers"):
        return f"{' and '.join(missing)} can't be found"
    if request.options.dtype == "int8":
        return "it does not compute in int8 (OpenVINO does, with IEI_DEVICE=cpu)"
    return (
        "`iei export` has written the folder, which has no weights" if checkpoint and checkpoint.is_exported else None
    )


RUNTIMES: Mapping[str, RuntimeRow] = {
    "openvino": RuntimeRow("iei.runtimes.openvino.load", refusal),
    "torch": RuntimeRow("iei.runtimes.torch.load", _refusal_of_torch),
}
"""Name → runtime, the preferred one first."""


def check(request: LoadRequest) -> None:
    """Finds out whether any runtime can do what is requested, before minutes are spent on a download.

    Raises:
        StartupError: none can; what the last of them said.
    """
    _first(request, None, lambda row: row.check(request))


def device_memory(device: str) -> int:
    """Bytes that the runtimes of this process have allocated on a device. On the CPU, its resident memory."""
    if device == "cpu":
        return resident_bytes(os.getpid())
    return sum(row.device_memory(device) for row in RUNTIMES.values() if row.module in sys.modules)


def pin(device: str, memory: npt.NDArray[np.uint8]) -> Callable[[], None] | None:
    """Has the runtimes of this process copy inputs from `memory` to a device without the CPU, if they can.

    Args:
        device: as in the description of a loaded model.
        memory: shared with whoever writes inputs into it.

    Returns:
        What undoes it, to be called before the memory is unmapped and while no input in it is being computed; None:
        inputs are copied as from any other memory.
    """
    rows = (row for row in RUNTIMES.values() if row.module in sys.modules)
    return next((undo for row in rows if (undo := row.pin(device, memory))), None)


def load(checkpoint: Checkpoint, request: LoadRequest) -> tuple[Runtime, str | None]:
    """Loads `checkpoint` with the first runtime of `RUNTIMES` that can.

    Returns:
        The runtime, and why those before it in the table did not take it; None if it is the first.

    Raises:
        StartupError: none can load it; what the last of them said.
    """
    runtime, reasons = _first(request, checkpoint, lambda row: row.load(checkpoint, request))
    for reason in reasons:
        log.info("%s: %s", request.entry.name, reason)
    return runtime, "; ".join(reasons) or None


def _first(request: LoadRequest, checkpoint: Checkpoint | None, work: Callable[[RuntimeRow], T]) -> tuple[T, list[str]]:
    """What `work` returns for the first row that does not refuse, and why those before it were left out."""
    chosen = request.options.runtime
    reasons: list[str] = []
    fault: StartupError | None = None
    for name, row in RUNTIMES.items() if chosen == "auto" else [(chosen, RUNTIMES[chosen])]:
        reason = row.refuses(request, checkpoint)
        if reason is None:
            try:
                return work(row), reasons
            except StartupError as error:
                fault, reason = error, str(error)
        reasons.append(f"not {name}: {reason}")
    raise fault or StartupError(
        f"{request.entry.id} can't be computed with IEI_RUNTIME={chosen} and these settings: {'; '.join(reasons)}."
    )
