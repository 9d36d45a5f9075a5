"""A converted model, compiled for this machine's CPU. Imports neither torch nor transformers."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from timeit import repeat, timeit
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from iei.machine import cores, forget_mapped, free_memory
from iei.models.catalog import LoadRequest
from iei.models.spec import POOLED, Geometry, Modality
from iei.runtimes.api import Input, Outputs
from iei.runtimes.openvino.converted import IMAGE_GRAPH, TEXT_GRAPH, WEIGHTS, Converted, ImageGraph, TextGraph
from iei.runtimes.openvino.library import core, hint, ov, properties

log = logging.getLogger("iei.engine")

MAX_BATCH_PER_CORE = 4
COPIED_AT_START = 128 << 20
"""Bytes of weights whose second copy, for crowds, is made at the start. That of larger ones (a ViT-B has 345 MB) waits
for the first crowd: whoever sends one input at a time needs no more memory, and a start takes no longer."""
SHARE_OF_FREE = 4
"""A copy that is made later takes at most one part in so many of the memory that is free then."""
LEAST_S = 0.002
"""What takes less is left to one thread: a second would be awake when the first is done. Measured for a ViT of no size,
which takes one thread 0.6 ms: two took 2.3 ms of CPU time, and no less time, for a lone picture."""

Array = npt.NDArray[Any]
Compiling = Callable[[], list[ov.InferRequest]]

PRECISIONS: Mapping[str, ov.Type] = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16, "int8": ov.Type.f32}
"""Type of the settings → what is computed in where the graph itself does not say int8."""


class OpenVINORuntime:
    """Implements `iei.runtimes.api.Runtime`.

    Args:
        folder: where the converted model is.
        converted: its description.
        geometry: the checkpoint's; None if it takes no pictures.
        request: how it is loaded.
    """

    device = "cpu"

    def __init__(self, folder: Path, converted: Converted, geometry: Geometry | None, request: LoadRequest) -> None:
        threads = request.options.threads or cores()
        self.dtype = "float32" if request.options.dtype == "auto" else request.options.dtype
        self.software = f"openvino {ov.get_version().partition('-')[0]}"
        self.parameters = converted.parameters
        self.max_batch = request.options.max_batch or MAX_BATCH_PER_CORE * threads
        self.contrast = converted.contrast
        self.quality = converted.quality
        self.image = converted.image.side if converted.image else None
        self.text = converted.text.side if converted.text else None

        def compiled(file: Path, outputs: Sequence[str], size: Geometry | None = None) -> Graph:
            graph = of_size(read(file), size) if size else read(file)
            nbytes = file.with_suffix(WEIGHTS).stat().st_size
            return Graph(graph, outputs, threads, PRECISIONS[self.dtype], Crowds(nbytes, self._forget_files))

        self._folder = folder
        self._threads = threads
        self._sides: dict[Modality, Pictures | Texts] = {}
        if converted.image and geometry:
            self._sides["image"] = Pictures(folder / IMAGE_GRAPH, converted.image, geometry, compiled)
        if converted.text:
            self._sides["text"] = Texts(folder / TEXT_GRAPH, converted.text, compiled)

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """As `iei.runtimes.api.Runtime.run`. Raises RuntimeError or ValueError for batches that can't be computed."""
        return self._sides[modality].run(batch, outputs, Graph.run)

    def lanes(self, modality: Modality, array: Input) -> int:
        """As `iei.runtimes.api.Parallel.lanes`."""
        return self._sides[modality].lanes(array)

    def run_on_lane(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """As `iei.runtimes.api.Parallel.run_on_lane`. Errors are those of `run`."""
        return self._sides[modality].run(batch, outputs, Graph.run_on_lane)

    def warm_up(self) -> None:
        """Computes a crowd once, where crowds have weights of their own, and lets the files go.

        The first forward puts the weights into the layout of the kernels. That of a lone input has been.
        """
        for modality, side in self._sides.items():
            if side.own.has_lanes:
                self.run(modality, [side.example] * self._threads, side.outputs[:1])
            if modality == "image" and side.own.has_lanes:  # all are as large as the example, but for other sizes
                side.own.time_lone(partial(self.run, modality, [side.example], side.outputs[:1]))
        self._forget_files()

    def _forget_files(self) -> None:
        for weights in self._folder.glob(f"*{WEIGHTS}"):
            forget_mapped(weights)


@dataclass(frozen=True)
class Crowds:
    """That a graph is compiled for crowds, too, and what that takes."""

    nbytes: int
    """Of the copy of the weights."""
    made: Callable[[], object]
    """Called when the copy was made later than at the start."""


class Graph:
    """A graph, compiled for inputs that come alone and for crowds.

    All threads share the operations of a small batch. Of a crowd, which has an input for each thread, each thread
    computes its part, and waits for no other at each operation. Measured for a ViT-Tiny, batch 8, two cores: 46
    pictures a second instead of 33 while others used the cores, as decoders do; 103 instead of 101 while nobody did.
    And a host that takes a core away for a moment stops one thread, not all that wait for it. The price is a second
    copy of the weights.

    Args:
        graph: as it was converted.
        outputs: their names, in the graph's order.
        threads: that compute a batch.
        precision: of the computation.
        crowds: what the second copy takes; without, there is one, and all batches are computed by all threads together.
    """

    def __init__(
        self,
        graph: ov.Model,
        outputs: Sequence[str],
        threads: int,
        precision: ov.Type,
        crowds: Crowds | None = None,
    ) -> None:
        self._lanes: list[ov.InferRequest] = []
        """One for each thread."""
        self._free: deque[ov.InferRequest] = deque()
        """Those of `_lanes` that `run_on_lane` does not use."""
        self._begin_copy: Callable[[Sequence[Array]], None] | None = None
        """What the first crowd calls, with one input: has the second copy made."""
        with ThreadPoolExecutor(1) as other:  # most of compiling is done by one thread
            compiling = None
            if crowds and threads > 1:
                compile_lanes = partial(_requests, graph.clone(), precision, threads, streams=threads)
                if crowds.nbytes <= COPIED_AT_START:
                    compiling = other.submit(compile_lanes)
                else:
                    self._begin_copy = partial(self._copy_for, crowds, compile_lanes)
            (self._together,) = _requests(graph, precision, threads, streams=1)
            if compiling:
                self._has(compiling.result())
        self._lone_s = math.inf
        """What one thread takes for an input; infinity where nobody has looked, or inputs differ."""
        self._threads = threads
        self._places = {name: place for place, name in enumerate(outputs)}

    @property
    def lanes(self) -> int:
        """As `iei.runtimes.api.Parallel.lanes`. Without the copy, or for what takes no time, there are none."""
        return len(self._lanes) if self.has_lanes and self._lone_s >= LEAST_S else 1

    @property
    def has_lanes(self) -> bool:
        """Whether the copy of the weights for crowds is there."""
        return bool(self._lanes)

    def time_lone(self, compute: Callable[[], object]) -> None:
        """Has batches that take less than `LEAST_S` computed by one thread. `compute` computes one input by `run`."""
        self._lone_s = 0.0  # so that one thread does
        first_s = timeit(compute, number=1)
        is_slow = first_s > 5 * LEAST_S
        self._lone_s = first_s if is_slow else min(repeat(compute, number=1, repeat=3))

    def run(self, inputs: Sequence[Array], outputs: Collection[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Computes a batch.

        Args:
            inputs: arrays [B, …].
            outputs: names of what is wanted.

        Returns:
            Output name → float32 [B, …], the caller's own.

        Raises:
            RuntimeError: it can't be computed.
        """
        count = len(inputs[0])
        if self._begin_copy and count >= self._threads:
            begin_copy, self._begin_copy = self._begin_copy, None
            begin_copy([array[:1].copy() for array in inputs])
        requests = self._requests_for(count)
        bounds = [count * lane // len(requests) for lane in range(len(requests) + 1)]
        parts = [[array[start:stop] for array in inputs] for start, stop in pairwise(bounds)]
        for request, part in zip(requests, parts, strict=True):
            _start(request, part)
        faults = [fault for request in requests if (fault := _wait(request))]  # for all: they still read the batch
        if faults:
            raise faults[0]
        return {name: self._gathered(requests, name) for name in outputs}

    def run_on_lane(self, inputs: Sequence[Array], outputs: Collection[str]) -> dict[str, npt.NDArray[np.float32]]:
        """As `run`, by one thread. As many threads as there are `lanes` may call it."""
        request = self._free.pop()
        try:
            _start(request, inputs)
            request.wait()
            return {name: self._gathered([request], name) for name in outputs}
        finally:
            self._free.append(request)

    def _requests_for(self, count: int) -> list[ov.InferRequest]:
        """What computes `count` inputs, each a part of them."""
        if self._lone_s < LEAST_S:
            return self._lanes[: max(1, int(count * self._lone_s / LEAST_S))]
        return self._lanes if 1 < len(self._lanes) <= count else [self._together]

    def _has(self, lanes: list[ov.InferRequest]) -> None:
        self._free.extend(lanes)
        self._lanes = lanes

    def _copy_for(self, crowds: Crowds, compile_lanes: Compiling, example: Sequence[Array]) -> None:
        """Has the second copy of the weights made in a thread, if there is room. Crowds are computed meanwhile."""
        needed, free = crowds.nbytes, free_memory()
        if needed * SHARE_OF_FREE > free:
            log.info(
                "crowds get no copy of the weights of their own: it would take %d MB, more than one part in %d of the "
                "memory that is free (%d MB)",
                *(needed // 10**6, SHARE_OF_FREE, free // 10**6),
            )
            return

        def make() -> None:
            try:
                lanes = compile_lanes()
                lanes[0].infer(example)  # the first forward puts the weights into the layout of the kernels
            except (RuntimeError, MemoryError) as error:
                log.warning("crowds get no copy of the weights of their own: %s", _first_line(error))
                return
            self._has(lanes)
            crowds.made()
            log.info("crowds have a copy of the weights of their own (%d MB)", needed // 10**6)

        try:
            threading.Thread(target=make, name="crowds", daemon=True).start()
        except RuntimeError as error:  # no thread is left
            log.warning("crowds get no copy of the weights of their own: %s", _first_line(error))

    def _gathered(self, requests: Sequence[ov.InferRequest], name: str) -> npt.NDArray[np.float32]:
        values = [request.get_output_tensor(self._places[name]).data for request in requests]
        return np.concatenate(values)


def _requests(graph: ov.Model, precision: ov.Type, threads: int, *, streams: int) -> list[ov.InferRequest]:
    """Compiles a graph for as many batches at a time as there are streams, which share the threads."""
    options: dict[str, Any] = {
        # Without it, OpenVINO computes in bfloat16 on CPUs that have it.
        hint.inference_precision: precision,
        properties.num_streams: streams,
        properties.inference_num_threads: threads,
        # The workers' decoders need the same cores.
        hint.enable_cpu_pinning: False,
    }
    compiled = core().compile_model(graph, "CPU", options)
    return [compiled.create_infer_request() for _ in range(streams)]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _start(request: ov.InferRequest, inputs: Sequence[Array]) -> None:
    """Begins a batch without a copy of it. `start_async` would take 0.1 ms to see what it is given, and do the same."""
    for place, array in enumerate(inputs):
        request.set_input_tensor(place, ov.Tensor(array, shared_memory=True))
    request.start_async()


def _wait(request: ov.InferRequest) -> RuntimeError | None:
    try:
        request.wait()
    except RuntimeError as error:
        return error
    return None


How = Callable[[Graph, Sequence[Array], Collection[str]], dict[str, npt.NDArray[np.float32]]]
"""`Graph.run` or `Graph.run_on_lane`."""


class Compile(Protocol):
    """How a side has its graphs compiled."""

    def __call__(self, file: Path, outputs: Sequence[str], size: Geometry | None = None) -> Graph:
        """Reads a graph and compiles it, for pictures of one size if that is given."""


class Pictures:
    """The image side: a graph for pictures of the checkpoint's own size, and one for all others it may take."""

    def __init__(self, file: Path, described: ImageGraph, geometry: Geometry, compile: Compile) -> None:
        self._file = file
        self._side = described.side
        self._size = geometry.size
        self._compile = compile
        self._any: Graph | None = None
        """Compiled when it is first needed: it has the weights in memory once more, and the file for as long."""
        self.own = self._of_any_size() if not described.folds else compile(file, self._side.outputs, geometry)
        self.outputs = self._side.outputs
        self.example = np.zeros((*geometry.size, 3), np.float32 if geometry.float_resize else np.uint8)

    def lanes(self, picture: Input) -> int:
        """As `Parallel.lanes`. The first picture of another size has `run` compile the graph."""
        graph = self.own if picture.shape[:2] == self._size else self._any
        return graph.lanes if graph else 1

    def run(self, batch: Sequence[Input], outputs: Collection[str], how: How) -> list[Outputs]:
        """As `Runtime.run`, by `how`."""
        pixels = np.stack(batch)
        if pixels.shape[1:3] == self._size:
            graph = self.own
        elif self._side.any_size:
            graph = self._of_any_size()
        else:
            raise ValueError(f"the model computes pictures of the shape {self._size} only, not {pixels.shape[1:3]}")
        results = how(graph, [pixels], outputs)
        return [{name: values[row] for name, values in results.items()} for row in range(len(batch))]

    def _of_any_size(self) -> Graph:
        self._any = self._any or self._compile(self._file, self._side.outputs)
        return self._any


class Texts:
    """The text side: a graph for texts of any length."""

    def __init__(self, file: Path, described: TextGraph, compile: Compile) -> None:
        self._padding = described.padding
        self.own = compile(file, described.side.outputs)
        self.outputs = described.side.outputs
        self.example = np.zeros(min(8, described.side.max_tokens), np.int32)

    def lanes(self, text: Input) -> int:
        """As `Parallel.lanes`."""
        return self.own.lanes

    def run(self, batch: Sequence[Input], outputs: Collection[str], how: How) -> list[Outputs]:
        """As `Runtime.run`, by `how`."""
        results = how(self.own, self._padding.batch(batch), outputs)
        return [
            {name: values[row] if name in POOLED else values[row, : len(text)] for name, values in results.items()}
            for row, text in enumerate(batch)
        ]


def read(file: Path) -> ov.Model:
    """Reads a graph; its weights stay in the file until it is compiled. Raises RuntimeError if it is none."""
    return core().read_model(file)


def of_size(graph: ov.Model, geometry: Geometry) -> ov.Model:
    """Writes the size of pictures into a graph [B, H, W, 3], in place: what follows from it is computed once."""
    graph.reshape([-1, *geometry.size, 3])
    return graph
