"""The PyTorch runtime for GPUs that are brought a batch while they compute another.

Copies to the device, forwards, and copies back have a stream each: what is on different streams may happen at the same
time, and what is on one happens in order. The CPU only waits for the results of a batch, when it is finished.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from iei.models.spec import Modality
from iei.runtimes.api import Input, Outputs
from iei.runtimes.torch.device import Placement
from iei.runtimes.torch.runtime import TorchRuntime, Towers
from iei.runtimes.torch.staging import Places, Staging, join, split
from iei.runtimes.torch.streams import own_stream


class Mark(Protocol):
    """A point in the work of a device."""

    def query(self) -> bool:
        """Whether the device has got there. Raises RuntimeError as `synchronize` does."""

    def synchronize(self) -> None:
        """Waits until the device has got there. Raises RuntimeError if it never will."""


class Streams(Protocol):
    """The three streams. What is called in the block of one of these methods is done on its stream."""

    def upload(self) -> AbstractContextManager[None]:
        """Copies to the device."""

    def compute(self, inputs: Iterable[Tensor]) -> AbstractContextManager[None]:
        """Forwards; they begin after all that was uploaded. `inputs` were."""

    def download(self, results: Tensor) -> AbstractContextManager[None]:
        """Copies from the device; they begin after all that was computed. `results` were."""

    def mark(self) -> Mark:
        """What the device has done once it has done all that is on the current stream."""

    def synchronize(self) -> None:
        """Waits until the device has done all that is on the three. Raises RuntimeError if it never will."""


class CudaStreams:
    """Implements `Streams`.

    Args:
        device: a CUDA device.
        compute: the stream for forwards; None: a new one.
    """

    def __init__(self, device: torch.device, compute: torch.cuda.Stream | None = None) -> None:
        self._upload = own_stream(device)
        self._compute = compute or own_stream(device)
        self._download = own_stream(device)
        # The weights were copied on this thread's stream, which these don't wait for.
        torch.cuda.current_stream(device).synchronize()

    def upload(self) -> AbstractContextManager[None]:
        """As `Streams.upload`."""
        return torch.cuda.stream(self._upload)

    @contextmanager
    def compute(self, inputs: Iterable[Tensor]) -> Iterator[None]:
        """As `Streams.compute`."""
        self._compute.wait_stream(self._upload)
        for tensor in inputs:
            # Freed, its memory is not given away before this stream is done with it, also if the forward raises.
            tensor.record_stream(self._compute)
        with torch.cuda.stream(self._compute):
            yield

    @contextmanager
    def download(self, results: Tensor) -> Iterator[None]:
        """As `Streams.download`."""
        self._download.wait_stream(self._compute)
        results.record_stream(self._download)
        with torch.cuda.stream(self._download):
            yield

    def mark(self) -> Mark:
        """As `Streams.mark`. A thread that waits for it sleeps: the workers that decode need its core."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def synchronize(self) -> None:
        """As `Streams.synchronize`."""
        for stream in (self._upload, self._compute, self._download):
            stream.synchronize()


class _Buffers:
    """The host's memory for one batch in flight, pinned for a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._is_pinned = device.type == "cuda"
        self.staging = Staging(device, direct=self._is_pinned)
        self._results = torch.empty(0)

    def receive(self, results: Tensor) -> Tensor:
        """Begins to copy float32 [B, N] from the device; returns where it will be."""
        if results.numel() > self._results.numel():
            self._results = torch.empty(results.numel(), pin_memory=self._is_pinned)
        host = self._results[: results.numel()].view(results.shape)
        return host.copy_(results, non_blocking=True)


class OverlappingRuntime(TorchRuntime):
    """A `TorchRuntime` that implements `iei.runtimes.api.Overlapping`.

    Args:
        towers: as for `TorchRuntime`; so are the others.
        placement: a GPU.
        streams: of that GPU.
        **options: as for `TorchRuntime`.
    """

    def __init__(self, towers: Towers, placement: Placement, streams: Streams, **options: Any) -> None:
        super().__init__(towers, placement, **options)
        self._streams = streams
        self._device = placement.device
        self._free: list[_Buffers] = []

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """As `TorchRuntime.run`."""
        return self.begin(modality, batch, outputs).finish()

    def begin(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> BegunBatch:
        """As `iei.runtimes.api.Overlapping.begin`."""
        buffers = self._free.pop() if self._free else _Buffers(self._device)
        with self.noticing_loss(), torch.inference_mode():
            try:
                host, places, mark = self._enqueue(modality, batch, outputs, buffers)
            except Exception:
                # Whoever gets the error may overwrite the inputs, which the device may still copy.
                self._streams.synchronize()
                raise
        return BegunBatch(self, modality, batch, buffers, host, places, mark)

    def _enqueue(
        self, modality: Modality, batch: Sequence[Input], outputs: Collection[str], buffers: _Buffers
    ) -> tuple[Tensor, Places, Mark]:
        """Returns where the results will be on the host, what they are there, and when."""
        with self._streams.upload():
            inputs = self.upload(modality, batch, buffers.staging)
        with self._streams.compute(inputs):
            joined, places = join(self.compute(modality, inputs, outputs))
            # A single output may lie in the memory of a graph, which the next batch overwrites.
            joined = joined.clone() if len(places) == 1 else joined
        with self._streams.download(joined):
            return buffers.receive(joined), places, self._streams.mark()

    def take_back(self, buffers: _Buffers) -> None:
        """Keeps buffers that the device does not use any more for another batch."""
        self._free.append(buffers)


@dataclass(frozen=True, slots=True)
class BegunBatch:
    """Implements `iei.runtimes.api.Begun`."""

    runtime: OverlappingRuntime
    modality: Modality
    batch: Sequence[Input]
    """What the device may still copy from."""
    buffers: _Buffers
    host: Tensor
    """Where the results will be."""
    places: Places
    mark: Mark

    def done(self) -> bool:
        """As `iei.runtimes.api.Begun.done`."""
        try:
            return self.mark.query()
        except RuntimeError:  # `finish` meets it, too, and tells what it means
            return True

    def finish(self) -> list[Outputs]:
        """As `iei.runtimes.api.Begun.finish`."""
        with self.runtime.noticing_loss():
            self.mark.synchronize()
        results = split(self.host.numpy().copy(), self.places)
        self.runtime.take_back(self.buffers)
        return self.runtime.without_padding(self.modality, results, self.batch)
