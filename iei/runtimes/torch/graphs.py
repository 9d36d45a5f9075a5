"""CUDA graphs: the kernels of a forward, recorded once for each of some batch sizes and launched again as one.

Launching the kernels of a ViT one by one takes the CPU longer than a GPU takes to compute a small batch. A graph has
fixed sizes and addresses: pictures are copied into its input, and a batch is padded to the next size that was recorded.
Whether a recorded forward gives what the eager one gives is tried out before it is used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iei.errors import StartupError
from iei.runtimes.torch.streams import own_stream
from iei.runtimes.torch.vision_model import Hidden

log = logging.getLogger("iei.engine")

WARM_UPS = 3
"""Forwards before a recording: libraries start, and choose their kernels, in the first ones."""
FINEST_STEP = 8
TOLERANCES: Mapping[torch.dtype, float] = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Largest difference from the eager forward, as a part of its largest value. The same kernels differ by nothing or
nearly so, a compiled model's by some roundings of its type."""

Forward = Callable[[Tensor], Hidden]
"""Pictures [B, H, W, 3] on the device → their hidden state."""
Outputs = Callable[[Hidden], Mapping[str, Tensor]]
"""A hidden state → all outputs of the model, by name."""
Replay = Callable[[], None]


class Recorder(Protocol):
    """What records the kernels of a device."""

    def record(self, work: Callable[[], Hidden]) -> tuple[Hidden, Replay]:
        """Records what `work` launches.

        Returns:
            Memory for the results, and what computes them again, there, from the present content of the input.

        Raises:
            Exception: `work` does what can't be recorded, or there is not enough memory.
        """


class CudaRecorder:
    """Implements `Recorder` with `torch.cuda.CUDAGraph`s, which share one pool of memory.

    They may share it since all of them run on one stream, one after the other. It is also the stream that they are
    recorded on, as cuBLAS has a workspace for each stream, whose address the kernels have.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = own_stream(device)
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Hidden]) -> tuple[Hidden, Replay]:
        """As `Recorder.record`."""
        self.stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UPS):
                work()
            graph = torch.cuda.CUDAGraph()
            # Of this thread only: meanwhile the engine's thread may run other models on the device.
            with torch.cuda.graph(graph, self._pool, self.stream, capture_error_mode="thread_local"):
                results = work()

        def replay() -> None:
            caller = torch.cuda.current_stream(self._device)
            if caller == self.stream:
                return graph.replay()
            self.stream.wait_stream(caller)
            with torch.cuda.stream(self.stream):
                graph.replay()
            caller.wait_stream(self.stream)

        return results, replay


@dataclass(frozen=True, slots=True)
class _Graph:
    results: Hidden
    replay: Replay


class Graphs:
    """A forward that replays graphs where it can, and else is the eager one. For one caller at a time.

    A result is overwritten by the next call, on the stream that it is called on.
    """

    def __init__(self, eager: Forward, recorder: Recorder) -> None:
        self._eager = eager
        self._recorder = recorder
        self._input = torch.empty(0)
        self._sizes: list[int] = []
        self._graphs: dict[int, _Graph] = {}

    @property
    def recorded(self) -> list[int]:
        """The batch sizes that have a graph."""
        return sorted(self._graphs)

    def __call__(self, pixels: Tensor) -> Hidden:
        """As the eager forward; pictures of another size or type than the recorded ones are given to it."""
        count = len(pixels)
        graph = self._graphs.get(next((size for size in self._sizes if size >= count), 0))
        if graph is None or (pixels.shape[1:], pixels.dtype) != (self._input.shape[1:], self._input.dtype):
            return self._eager(pixels)
        self._input[:count].copy_(pixels)  # what follows in the input is left from an earlier batch
        graph.replay()
        return graph.results.first(count)

    def record(self, pixels: Tensor, outputs: Outputs, dtype: torch.dtype, work: Forward | None = None) -> None:
        """Records a graph for each of the sizes; those that fail, or differ from the eager forward, stay eager.

        The largest comes first, so that the smaller ones fit into the memory that it has taken.

        Args:
            pixels: `trials`, [largest batch + 1, H, W, 3] on the device.
            outputs: what is compared.
            dtype: of the forward.
            work: what is recorded, if it is not the eager forward itself.

        Raises:
            StartupError: a recording that failed has left the device's memory in a state that nothing can be done with.
        """
        largest = len(pixels) - 1
        work = work or self._eager
        self._input = pixels[:largest].clone()
        self._sizes = batch_sizes(largest)
        started = time.monotonic()
        for number, size in enumerate(reversed(self._sizes), 1):
            try:
                graph = self._record_one(work, size)
                fault = self._difference(graph, size, pixels, outputs, dtype)
            except Exception as error:
                # Mostly what can't be recorded, or memory: the smaller sizes would fail as well.
                log.warning("graphs: batches of up to %d stay eager: %s: %s", size, type(error).__name__, error)
                return _check_allocator()
            if fault:
                log.warning("graphs: batches of %d stay eager: %s", size, fault)
            else:
                self._graphs[size] = graph
            elapsed = time.monotonic() - started
            log.info("graphs: %d of %d batch sizes (%d) after %.1f s", number, len(self._sizes), size, elapsed)

    def _record_one(self, work: Forward, size: int) -> _Graph:
        part = self._input[:size]
        return _Graph(*self._recorder.record(lambda: work(part)))

    def _difference(self, graph: _Graph, size: int, pixels: Tensor, outputs: Outputs, dtype: torch.dtype) -> str | None:
        """Returns how the graph's outputs differ from the eager ones; None if they don't.

        Two batches are compared, which have other pictures in each place: a graph that had kept anything of those that
        it was recorded with would give the outputs of the one for both. So the output that tells the two apart best
        must be nearer to its own batch's.
        """
        batches = pixels[:size], pixels[1 : size + 1]
        eager = [outputs(self._eager(batch)) for batch in batches]
        for batch, expected, other in zip(batches, eager, reversed(eager), strict=True):
            self._input[:size].copy_(batch)
            graph.replay()
            results = outputs(graph.results)
            off = {name: _largest(value - expected[name]) for name, value in results.items()}
            allowed = {name: TOLERANCES[dtype] * _largest(expected[name]) for name in results}
            apart = {name: _largest(other[name] - expected[name]) for name in results}
            # A model may give nearly the same of one kind for all pictures: then rounding is most of a difference.
            telling = max(results, key=lambda name: apart[name] / (allowed[name] or 1.0))
            allowed[telling] = min(allowed[telling], apart[telling] / 2)
            for name in results:
                if not off[name] <= allowed[name]:  # also if it is NaN
                    return f"{name} differs by {off[name]:.2g} (allowed: {allowed[name]:.2g})"
        return None


def _check_allocator() -> None:
    """Tries whether memory can still be freed: to older versions of torch, a failed recording seems to go on for ever.

    It is what https://github.com/pytorch/pytorch/pull/180395 mends.

    Raises:
        StartupError: it can't. Each time that the device's memory is full, torch would fail instead of freeing some.
    """
    try:
        torch.cuda.empty_cache()
    except RuntimeError as error:
        raise StartupError(
            "Recording graphs has failed, and torch can't free memory any more: set IEI_GPU_FORWARD=eager."
        ) from error


def trials(count: int, height: int, width: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Pictures uint8 [H, W, 3] of which neighbours differ in kind: of one colour, with a gradient, and noisy.

    Pictures of noise alone look the same to many a model: their tokens have the same mean.
    """
    random = np.random.default_rng(0)
    across = np.linspace(-0.5, 0.5, width)[None, :, None]
    down = np.linspace(-0.5, 0.5, height)[:, None, None]
    for number in range(count):
        colour, *slopes = random.uniform(-128, 128, (3, 3))
        gradient = (across * slopes[0] + down * slopes[1]) * (number % 3 > 0)
        noise = random.uniform(-128, 128, (height, width, 3)) * (number % 3 > 1)
        yield np.clip(128 + colour + gradient + noise, 0, 255).astype(np.uint8)


def batch_sizes(largest: int) -> list[int]:
    """The sizes to record, ascending: 1, 2, 4, 8, and then in steps of an eighth of the largest, which is the last.

    Padding a small batch costs nothing, since it does not fill the device. That of a large one is computed, so that
    powers of two would nearly double the time of a batch of 33.
    """
    step = max(FINEST_STEP, 1 << max(0, (largest // 8).bit_length() - 1))
    powers = [1 << exponent for exponent in range(step.bit_length() - 1)]
    return sorted({size for size in (*powers, *range(step, largest, step)) if size < largest} | {largest})


def _largest(values: Tensor) -> float:
    return float(values.abs().max())
