from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iei.errors import StartupError
from iei.models.spec import POOLED, LoadRequest
from iei.runtimes.api import DeviceLost
from iei.runtimes.torch.load import LoadedModel, load_model
from iei.runtimes.torch.runtime import Staging, TorchRuntime, load
from tests.checkpoints.vision_checkpoints import write_checkpoint

RNG = np.random.default_rng(0)


def _pictures(count: int, side: int = 224) -> list[NDArray[np.uint8]]:
    return list(RNG.integers(0, 256, (count, side, side, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("vit-pooler", tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def runtime(folder: Path) -> TorchRuntime:
    return load(LoadRequest("tiny", str(folder), device="cpu", threads=1))


def test_answers_in_order(runtime: TorchRuntime) -> None:
    pictures = _pictures(3)
    forward = runtime.run("image", pictures, ["mean"])
    backward = runtime.run("image", pictures[::-1], ["mean"])
    for ahead, back in zip(forward, backward[::-1], strict=True):
        np.testing.assert_allclose(ahead["mean"], back["mean"], atol=1e-6)


def test_gives_what_was_asked_and_nothing_else(runtime: TorchRuntime) -> None:
    assert [set(result) for result in runtime.run("image", _pictures(2), {"cls", "patches"})] == [
        {"cls", "patches"}
    ] * 2


def test_one_output_equals_the_same_among_all(runtime: TorchRuntime) -> None:
    assert runtime.spec.image is not None
    pictures = _pictures(2)
    everything = runtime.run("image", pictures, list(runtime.spec.image.outputs))
    for name in runtime.spec.image.outputs:
        for among, alone in zip(everything, runtime.run("image", pictures, [name]), strict=True):
            np.testing.assert_array_equal(among[name], alone[name])


def test_arrays_are_float32_and_contiguous(runtime: TorchRuntime) -> None:
    assert runtime.spec.image is not None
    for outputs in (list(runtime.spec.image.outputs), ["cls"], ["patches"]):
        for result in runtime.run("image", _pictures(2), outputs):
            for name, array in result.items():
                assert array.dtype == np.float32
                assert array.flags.c_contiguous
                assert array.ndim == (1 if name in POOLED else 2)


def test_results_outlive_the_next_batch(runtime: TorchRuntime) -> None:
    first = runtime.run("image", _pictures(2), ["tokens", "mean"])
    copies = [{name: array.copy() for name, array in result.items()} for result in first]
    runtime.run("image", _pictures(2), ["tokens", "mean"])
    for result, copy in zip(first, copies, strict=True):
        for name in result:
            np.testing.assert_array_equal(result[name], copy[name])


def test_small_batch_after_a_large_one_sees_none_of_it(runtime: TorchRuntime) -> None:
    picture = _pictures(1)
    before = runtime.run("image", picture, ["mean"])[0]["mean"]
    runtime.run("image", _pictures(5), ["mean"])
    np.testing.assert_allclose(runtime.run("image", picture, ["mean"])[0]["mean"], before, atol=1e-6)


def test_float_pixels_are_taken_as_they_are(runtime: TorchRuntime) -> None:
    """DINOv3 resamples floats: [0, 255], not rounded."""
    pictures = _pictures(2)
    as_floats = [picture.astype(np.float32) for picture in pictures]
    for whole, real in zip(
        runtime.run("image", pictures, ["mean"]), runtime.run("image", as_floats, ["mean"]), strict=True
    ):
        np.testing.assert_array_equal(whole["mean"], real["mean"])
    shifted = runtime.run("image", [picture + np.float32(0.4) for picture in as_floats], ["mean"])
    assert np.abs(shifted[0]["mean"] - whole["mean"]).max() > 1e-4


def test_read_only_pixels_are_taken(runtime: TorchRuntime) -> None:
    """Another process's memory is mapped so."""
    picture = _pictures(1)[0]
    picture.flags.writeable = False
    assert np.isfinite(runtime.run("image", [picture], ["mean"])[0]["mean"]).all()


def test_shapes_that_differ_are_an_error_of_this_batch_only(runtime: TorchRuntime) -> None:
    with pytest.raises(ValueError, match="shape"):
        runtime.run("image", [*_pictures(1), *_pictures(1, 256)], ["mean"])
    assert len(runtime.run("image", _pictures(1), ["mean"])) == 1


def test_batch_of_a_cpu_grows_with_its_threads(folder: Path) -> None:
    assert load(LoadRequest("tiny", str(folder), device="cpu", threads=1)).max_batch == 4
    assert load(LoadRequest("tiny", str(folder), device="cpu", threads=3)).max_batch == 12
    assert load(LoadRequest("tiny", str(folder), device="cpu", threads=3, max_batch=5)).max_batch == 5


class BrokenModel(torch.nn.Module):
    """Stands for a model on a GPU: this machine need not have one."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, pixels: torch.Tensor, outputs: list[str]) -> dict[str, torch.Tensor]:
        raise self.error


@pytest.fixture
def on_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    loaded = load_model(LoadRequest("tiny", str(folder), device="cpu"))
    monkeypatch.setattr(Staging, "put", lambda self, batch: torch.zeros(len(batch), 224, 224, 3))
    return LoadedModel(loaded.spec, torch.device("cuda:0"), loaded.image)


def _broken(loaded: LoadedModel, error: Exception) -> TorchRuntime:
    return TorchRuntime(LoadedModel(loaded.spec, loaded.device, BrokenModel(error)))  # type: ignore[arg-type]


def test_gpu_batches_are_larger(on_gpu: LoadedModel) -> None:
    assert TorchRuntime(on_gpu).max_batch == 64


def test_a_lost_context_is_said_to_be_lost(on_gpu: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronize(device: torch.device) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        _broken(on_gpu, RuntimeError("CUDA error: an illegal memory access")).run("image", _pictures(1), ["mean"])


def test_an_error_that_the_context_survives_is_only_an_error(
    on_gpu: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    with pytest.raises(torch.OutOfMemoryError):
        _broken(on_gpu, torch.OutOfMemoryError("CUDA out of memory")).run("image", _pictures(1), ["mean"])


def test_a_batch_that_does_not_fit_stops_the_start(on_gpu: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    with pytest.raises(StartupError, match=r"A batch of 64 does not fit .*lower IEI_MAX_BATCH"):
        _broken(on_gpu, torch.OutOfMemoryError("CUDA out of memory")).warm_up()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu_equals_cpu(folder: Path, runtime: TorchRuntime) -> None:
    assert runtime.spec.image is not None
    outputs = list(runtime.spec.image.outputs)
    pictures = _pictures(3)
    exact = load(LoadRequest("tiny", str(folder), device="cuda", dtype="float32")).run("image", pictures, outputs)
    rounded = load(LoadRequest("tiny", str(folder), device="cuda")).run("image", pictures, outputs)
    for index, expected in enumerate(runtime.run("image", pictures, outputs)):
        for name, array in expected.items():
            assert np.abs(exact[index][name] - array).max() <= 1e-3
            flat, theirs = array.ravel(), rounded[index][name].ravel()
            assert flat @ theirs / np.linalg.norm(flat) / np.linalg.norm(theirs) > 0.999
