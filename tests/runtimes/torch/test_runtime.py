from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iei.checkpoints.checkpoint import read_checkpoint
from iei.errors import StartupError
from iei.models.spec import POOLED
from iei.runtimes.api import DeviceLost, Model
from iei.runtimes.loading import load
from iei.runtimes.torch.device import place
from iei.runtimes.torch.load import load_towers
from iei.runtimes.torch.runtime import TorchRuntime
from iei.runtimes.torch.staging import Staging
from iei.runtimes.torch.vision_model import Hidden
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.load_requests import load_request
from tests.runtimes.torch.recorders import ReplayedCalls

RNG = np.random.default_rng(0)


def _pictures(count: int, side: int = 224) -> list[NDArray[np.uint8]]:
    return list(RNG.integers(0, 256, (count, side, side, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("vit-pooler", tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def runtime(folder: Path) -> Model:
    return load(load_request("tiny", str(folder), device="cpu", threads=1))


def test_answers_in_order(runtime: Model) -> None:
    pictures = _pictures(3)
    forward = runtime.run("image", pictures, ["mean"])
    backward = runtime.run("image", pictures[::-1], ["mean"])
    for ahead, back in zip(forward, backward[::-1], strict=True):
        np.testing.assert_allclose(ahead["mean"], back["mean"], atol=1e-6)


def test_gives_what_was_asked_and_nothing_else(runtime: Model) -> None:
    assert [set(result) for result in runtime.run("image", _pictures(2), {"cls", "patches"})] == [
        {"cls", "patches"}
    ] * 2


def test_one_output_equals_the_same_among_all(runtime: Model) -> None:
    assert runtime.spec.image is not None
    pictures = _pictures(2)
    everything = runtime.run("image", pictures, list(runtime.spec.image.outputs))
    for name in runtime.spec.image.outputs:
        for among, alone in zip(everything, runtime.run("image", pictures, [name]), strict=True):
            np.testing.assert_array_equal(among[name], alone[name])


def test_arrays_are_float32_and_contiguous(runtime: Model) -> None:
    assert runtime.spec.image is not None
    for outputs in (list(runtime.spec.image.outputs), ["cls"], ["patches"]):
        for result in runtime.run("image", _pictures(2), outputs):
            for name, array in result.items():
                assert array.dtype == np.float32
                assert array.flags.c_contiguous
                assert array.ndim == (1 if name in POOLED else 2)


def test_results_outlive_the_next_batch(runtime: Model) -> None:
    first = runtime.run("image", _pictures(2), ["tokens", "mean"])
    copies = [{name: array.copy() for name, array in result.items()} for result in first]
    runtime.run("image", _pictures(2), ["tokens", "mean"])
    for result, copy in zip(first, copies, strict=True):
        for name in result:
            np.testing.assert_array_equal(result[name], copy[name])


def test_small_batch_after_a_large_one_sees_none_of_it(runtime: Model) -> None:
    picture = _pictures(1)
    before = runtime.run("image", picture, ["mean"])[0]["mean"]
    runtime.run("image", _pictures(5), ["mean"])
    np.testing.assert_allclose(runtime.run("image", picture, ["mean"])[0]["mean"], before, atol=1e-6)


def test_float_pixels_are_taken_as_they_are(runtime: Model) -> None:
    """DINOv3 resamples floats: [0, 255], not rounded."""
    pictures = _pictures(2)
    as_floats = [picture.astype(np.float32) for picture in pictures]
    for whole, real in zip(
        runtime.run("image", pictures, ["mean"]), runtime.run("image", as_floats, ["mean"]), strict=True
    ):
        np.testing.assert_array_equal(whole["mean"], real["mean"])
    shifted = runtime.run("image", [picture + np.float32(0.4) for picture in as_floats], ["mean"])
    assert np.abs(shifted[0]["mean"] - whole["mean"]).max() > 1e-4


def test_read_only_pixels_are_taken(runtime: Model) -> None:
    """Another process's memory is mapped so."""
    picture = _pictures(1)[0]
    picture.flags.writeable = False
    assert np.isfinite(runtime.run("image", [picture], ["mean"])[0]["mean"]).all()


def test_shapes_that_differ_are_an_error_of_this_batch_only(runtime: Model) -> None:
    with pytest.raises(ValueError, match="shape"):
        runtime.run("image", [*_pictures(1), *_pictures(1, 256)], ["mean"])
    assert len(runtime.run("image", _pictures(1), ["mean"])) == 1


def test_batch_of_a_cpu_grows_with_its_threads(folder: Path) -> None:
    assert load(load_request("tiny", str(folder), device="cpu", threads=1)).spec.max_batch == 4
    assert load(load_request("tiny", str(folder), device="cpu", threads=3)).spec.max_batch == 12
    assert load(load_request("tiny", str(folder), device="cpu", threads=3, max_batch=5)).spec.max_batch == 5


class OnGpu:
    """A loaded model, as if it was on a GPU: this machine need not have one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        placement = place(load_request("tiny", str(folder), device="cpu"))
        self._towers = load_towers(read_checkpoint(folder), placement, allow_pickle=False)
        self._placement = replace(placement, device=torch.device("cuda:0"))
        self._monkeypatch = monkeypatch

    def runtime(self, error: Exception | None = None, **options: Any) -> TorchRuntime:
        """The runtime, all of whose forwards raise `error`, if there is one."""

        def hidden(pixels: torch.Tensor) -> Hidden:
            assert error is not None
            raise error

        if error:
            self._monkeypatch.setattr(self._towers.image, "hidden", hidden)
        return TorchRuntime(self._towers, self._placement, **options)

    def synchronize(self, error: Exception | None = None) -> None:
        """Waiting for the device raises `error`, if there is one."""

        class Stream:
            def synchronize(self) -> None:
                if error:
                    raise error

        self._monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())


@pytest.fixture
def on_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> OnGpu:
    monkeypatch.setattr(Staging, "put", lambda self, batch: torch.from_numpy(np.stack(batch)))
    return OnGpu(folder, monkeypatch)


def test_gpu_batches_are_larger(on_gpu: OnGpu) -> None:
    runtime = on_gpu.runtime()
    assert (runtime.device, runtime.max_batch) == ("cuda:0", 64)


def test_a_lost_context_is_said_to_be_lost(on_gpu: OnGpu) -> None:
    on_gpu.synchronize(RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(DeviceLost, match="illegal memory access"):
        on_gpu.runtime(RuntimeError("CUDA error: an illegal memory access")).run("image", _pictures(1), ["mean"])


def test_an_error_that_the_context_survives_is_only_an_error(on_gpu: OnGpu) -> None:
    on_gpu.synchronize()
    with pytest.raises(torch.OutOfMemoryError):
        on_gpu.runtime(torch.OutOfMemoryError("CUDA out of memory")).run("image", _pictures(1), ["mean"])


def test_a_batch_that_does_not_fit_stops_the_start(on_gpu: OnGpu) -> None:
    on_gpu.synchronize()
    with pytest.raises(StartupError, match=r"A batch of 64 does not fit .*lower IEI_MAX_BATCH"):
        on_gpu.runtime(torch.OutOfMemoryError("CUDA out of memory")).warm_up()


def test_graphs_are_recorded_when_it_warms_up_and_give_the_same(on_gpu: OnGpu, runtime: Model) -> None:
    on_gpu.synchronize()
    graphed = on_gpu.runtime(max_batch=4, recorder=ReplayedCalls())
    assert "CUDA graphs" not in graphed.software
    graphed.warm_up()
    assert graphed.software.endswith("(sdpa, CUDA graphs)")
    assert graphed.image
    pictures = _pictures(3)
    outputs = graphed.image.outputs
    expected = runtime.run("image", pictures, outputs)
    for ours, eager in zip(graphed.run("image", pictures, outputs), expected, strict=True):
        for name in outputs:
            np.testing.assert_allclose(ours[name], eager[name], atol=1e-5)


def test_a_device_that_recording_has_lost_stops_the_start(on_gpu: OnGpu) -> None:
    on_gpu.synchronize(RuntimeError("CUDA error"))
    with pytest.raises(StartupError, match="set IEI_GPU_FORWARD=eager"):
        on_gpu.runtime(max_batch=1, recorder=ReplayedCalls()).warm_up()


def test_a_cpu_has_no_graphs(folder: Path) -> None:
    spec = load(load_request("tiny", str(folder), device="cpu", gpu_forward="compile")).spec
    assert "graphs" not in spec.runtime
    assert "compiled" not in spec.runtime


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu_equals_cpu(folder: Path, runtime: Model) -> None:
    assert runtime.spec.image is not None
    outputs = list(runtime.spec.image.outputs)
    pictures = _pictures(3)
    exact = load(load_request("tiny", str(folder), device="cuda", dtype="float32")).run("image", pictures, outputs)
    rounded = load(load_request("tiny", str(folder), device="cuda")).run("image", pictures, outputs)
    for index, expected in enumerate(runtime.run("image", pictures, outputs)):
        for name, array in expected.items():
            assert np.abs(exact[index][name] - array).max() <= 1e-3
            flat, theirs = array.ravel(), rounded[index][name].ravel()
            assert flat @ theirs / np.linalg.norm(flat) / np.linalg.norm(theirs) > 0.999


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("kind", ["graphs", "compile"])
def test_graphs_of_a_gpu_equal_eager(folder: Path, kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"device": "cuda", "dtype": "float32", "max_batch": 16}
    eager = load(load_request("tiny", str(folder), **options))
    graphed = load(load_request("tiny", str(folder), **options, gpu_forward=kind, cache_dir=tmp_path))
    assert graphed.spec.runtime.endswith("CUDA graphs)")
    assert graphed.spec.image
    outputs = list(graphed.spec.image.outputs)
    for count in (1, 3, 16, 2):
        pictures = _pictures(count)
        expected = eager.run("image", pictures, outputs)
        for ours, theirs in zip(graphed.run("image", pictures, outputs), expected, strict=True):
            for name in outputs:
                np.testing.assert_allclose(ours[name], theirs[name], atol=1e-3)
