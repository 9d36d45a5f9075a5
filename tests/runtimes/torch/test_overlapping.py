"""The runtime for GPUs, whose streams are stood in for: everything is done at once, by the CPU."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from iei.checkpoints.checkpoint import read_checkpoint
from iei.models.spec import POOLED
from iei.runtimes.api import DeviceLost, Model, Overlapping
from iei.runtimes.loading import load
from iei.runtimes.torch.device import place
from iei.runtimes.torch.load import load_towers
from iei.runtimes.torch.overlapping import CudaStreams, Mark, OverlappingRuntime
from iei.runtimes.torch.runtime import TorchRuntime
from tests.checkpoints.text_checkpoints import write_text_checkpoint
from tests.load_requests import load_request
from tests.runtimes.torch.recorders import ReplayedCalls

RNG = np.random.default_rng(0)
TEXTS = [np.arange(5, 5 + length, dtype=np.int32) for length in (3, 7, 4)]


@dataclass
class InlineMark:
    waits: list[str]
    error: Exception | None

    def query(self) -> bool:
        if self.error:
            raise self.error
        return False

    def synchronize(self) -> None:
        self.waits.append("wait")
        if self.error:
            raise self.error


class InlineStreams:
    """Implements `Streams` without any. `events` has what is done on which, `error` is what waiting raises."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.error: Exception | None = None

    def upload(self) -> AbstractContextManager[None]:
        self.events.append("upload")
        return nullcontext()

    def compute(self, inputs: Iterable[Tensor]) -> AbstractContextManager[None]:
        self.events.append("compute")
        return nullcontext()

    def download(self, results: Tensor) -> AbstractContextManager[None]:
        self.events.append("download")
        return nullcontext()

    def mark(self) -> Mark:
        return InlineMark(self.events, self.error)

    def synchronize(self) -> None:
        self.events.append("all done")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_checkpoint("clip", tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def eager(folder: Path) -> TorchRuntime:
    runtime = load(load_request("tiny", str(folder), device="cpu", threads=1)).runtime
    assert isinstance(runtime, TorchRuntime)
    return runtime


@pytest.fixture
def streams() -> InlineStreams:
    return InlineStreams()


@pytest.fixture
def overlapping(folder: Path, streams: InlineStreams) -> OverlappingRuntime:
    placement = place(load_request("tiny", str(folder), device="cpu"))
    towers = load_towers(read_checkpoint(folder), placement, allow_pickle=False)
    return OverlappingRuntime(towers, placement, streams, max_batch=4, recorder=ReplayedCalls())


def _pictures(runtime: TorchRuntime, count: int) -> list[NDArray[np.uint8]]:
    assert runtime._image_model
    return list(RNG.integers(0, 256, (count, *runtime._image_model.geometry.size, 3), np.uint8))


def test_it_computes_what_the_other_does(eager: TorchRuntime, overlapping: OverlappingRuntime) -> None:
    assert eager.image
    assert eager.text
    for modality, batch, outputs in (
        ("image", _pictures(eager, 3), eager.image.outputs),
        ("text", TEXTS, eager.text.outputs),
        ("text", TEXTS, ("tokens",)),
    ):
        expected = eager.run(modality, batch, outputs)  # type: ignore[arg-type]
        for ours, theirs in zip(overlapping.run(modality, batch, outputs), expected, strict=True):  # type: ignore[arg-type]
            assert set(ours) == set(outputs)
            for name in outputs:
                assert ours[name].shape == theirs[name].shape
                assert ours[name].ndim == (1 if name in POOLED else 2)
                np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)


def test_beginning_does_not_wait(overlapping: OverlappingRuntime, streams: InlineStreams) -> None:
    begun = overlapping.begin("image", _pictures(overlapping, 2), ["mean"])
    assert streams.events == ["upload", "compute", "download"]
    begun.finish()
    assert streams.events[3:] == ["wait"]


def test_a_batch_is_done_when_the_device_says_so_or_has_failed(
    overlapping: OverlappingRuntime, streams: InlineStreams
) -> None:
    assert not overlapping.begin("image", _pictures(overlapping, 1), ["mean"]).done()
    streams.error = RuntimeError("out of luck")
    assert overlapping.begin("image", _pictures(overlapping, 1), ["mean"]).done()


@pytest.mark.parametrize("outputs", [["mean"], ["tokens"], ["mean", "patches"]])
@pytest.mark.parametrize("has_graphs", [True, False], ids=["graphs", "eager"])
def test_batches_in_flight_have_their_own_results(
    eager: TorchRuntime, overlapping: OverlappingRuntime, outputs: list[str], has_graphs: bool
) -> None:
    if has_graphs:
        graphs = overlapping._graphs
        assert graphs
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(overlapping, "_lost", lambda: False)
            overlapping._record(graphs)
        assert graphs.recorded == [1, 2, 4]
    batches = [_pictures(eager, count) for count in (4, 3, 4)]
    first, second = (overlapping.begin("image", batch, outputs) for batch in batches[:2])
    results = [first.finish()]
    third = overlapping.begin("image", batches[2], outputs)
    results += [second.finish(), third.finish()]
    for batch, rows in zip(batches, results, strict=True):
        for ours, theirs in zip(rows, eager.run("image", batch, outputs), strict=True):
            for name in outputs:
                np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)


def test_buffers_are_used_again_when_nothing_is_copied_to_or_from_them(
    overlapping: OverlappingRuntime, streams: InlineStreams
) -> None:
    pictures = _pictures(overlapping, 1)
    first, second = (overlapping.begin("image", pictures, ["mean"]) for _ in range(2))
    assert first.buffers is not second.buffers
    first.finish()
    third = overlapping.begin("image", pictures, ["mean"])
    assert third.buffers is first.buffers
    streams.error = RuntimeError("out of luck")
    failing = overlapping.begin("image", pictures, ["mean"])
    with pytest.raises(RuntimeError, match="out of luck"):
        failing.finish()
    assert overlapping.begin("image", pictures, ["mean"]).buffers is not failing.buffers


def test_a_device_that_is_lost_meanwhile_is_said_to_be(
    overlapping: OverlappingRuntime, streams: InlineStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams.error = RuntimeError("CUDA error: an illegal memory access")
    begun = overlapping.begin("image", _pictures(overlapping, 1), ["mean"])
    monkeypatch.setattr(overlapping, "_lost", lambda: True)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        begun.finish()


def test_an_error_in_beginning_is_one_of_this_batch_only(
    overlapping: OverlappingRuntime, streams: InlineStreams
) -> None:
    pictures = _pictures(overlapping, 2)
    with pytest.raises(ValueError, match="shape"):
        overlapping.begin("image", [pictures[0], pictures[1][:-1]], ["mean"])
    assert streams.events == ["upload", "all done"]
    assert len(overlapping.run("image", pictures, ["mean"])) == 2


def test_nothing_reads_the_inputs_any_more_when_a_forward_has_raised(
    overlapping: OverlappingRuntime, streams: InlineStreams
) -> None:
    with pytest.raises(KeyError):
        overlapping.begin("image", _pictures(overlapping, 1), ["no such output"])
    assert streams.events == ["upload", "compute", "all done"]


class FakeStream:
    """A stream of a device that there is not."""

    def __init__(self, *_: object) -> None:
        self.cuda_stream = id(self)

    def wait_stream(self, other: FakeStream) -> None: ...

    def synchronize(self) -> None: ...


class Recorded:
    """A tensor that knows which streams use it."""

    def __init__(self) -> None:
        self.streams: list[object] = []

    def record_stream(self, stream: object) -> None:
        self.streams.append(stream)


@pytest.mark.parametrize("on", ["compute", "download"])
def test_memory_is_kept_for_a_stream_even_if_what_was_enqueued_there_raises(
    on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    streams: Any = CudaStreams(torch.device("cuda", 0))
    tensor = Recorded()
    with pytest.raises(RuntimeError), streams.compute([tensor]) if on == "compute" else streams.download(tensor):
        raise RuntimeError("no kernel for this picture")
    assert tensor.streams == [getattr(streams, f"_{on}")]


def test_a_model_overlaps_if_its_runtime_does(
    eager: TorchRuntime, overlapping: OverlappingRuntime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = load_request("tiny", str(folder), device="cpu", threads=1, gpu_overlap=True)
    assert not isinstance(load(request), Overlapping)  # on a CPU
    monkeypatch.setattr("iei.runtimes.select.load", lambda checkpoint, request: (overlapping, None))
    model: Model = load(request)
    assert isinstance(model, Overlapping)
    pictures = _pictures(eager, 2)
    ours = model.begin("image", pictures, ["mean"]).finish()
    np.testing.assert_allclose(ours[1]["mean"], eager.run("image", pictures, ["mean"])[1]["mean"], atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("gpu_forward", ["eager", "graphs"])
def test_batches_in_flight_on_a_gpu_have_their_own_results(folder: Path, gpu_forward: str) -> None:
    options: dict[str, Any] = {"device": "cuda", "dtype": "float32", "max_batch": 16}
    expected = load(load_request("tiny", str(folder), **options))
    model = load(load_request("tiny", str(folder), **options, gpu_overlap=True, gpu_forward=gpu_forward))
    assert isinstance(model, Overlapping)
    assert expected.spec.image
    outputs = list(expected.spec.image.outputs)
    size = expected.spec.image.geometry.size
    batches = [list(RNG.integers(0, 256, (count, *size, 3), np.uint8)) for count in (16, 3, 9, 16, 1, 2) * 5]
    begun = model.begin("image", batches[0], outputs)
    for number, batch in enumerate(batches):
        after = model.begin("image", batches[(number + 1) % len(batches)], outputs)
        for ours, theirs in zip(begun.finish(), expected.run("image", batch, outputs), strict=True):
            for name in outputs:
                np.testing.assert_allclose(ours[name], theirs[name], atol=1e-3)
        begun = after
    begun.finish()
