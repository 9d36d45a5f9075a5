"""Which checkpoints OpenVINO computes, and what becomes of the others."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from iei.checkpoints.demo import write_demo
from iei.errors import StartupError
from iei.models.spec import Modality
from iei.runtimes.api import Input, Model, Outputs, Parallel
from iei.runtimes.loading import load
from iei.runtimes.openvino import convert, runtime
from iei.runtimes.openvino.converter import convert as convert_in_a_process
from tests.checkpoints.text_checkpoints import write_text_checkpoint
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.converted import load_here
from tests.load_requests import load_request
from tests.memory import resident_kib
from tests.runtimes.torch.parity import assert_all_equal


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Conversions happen in this process, which has torch already."""
    monkeypatch.setattr("iei.runtimes.openvino.load.convert", convert.convert)
    return tmp_path / "cache"


class Converted(NamedTuple):
    checkpoint: Path
    cache: Path


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """For tests that are about what is done with a converted model. They leave its cache as it is."""
    folder = tmp_path_factory.mktemp("converted")
    converted = Converted(write_checkpoint("vit", folder / "vit"), folder / "cache")
    load_here(*converted)
    return converted


def _load(folder: Path, cache: Path, **options: Any) -> Model:
    return load(load_request("tiny", str(folder), **{"runtime": "auto", "cache_dir": cache, "threads": 1, **options}))


def test_both_sides_and_other_sizes_equal_torch(tmp_path: Path, cache: Path) -> None:
    folder = write_text_checkpoint("clip", tmp_path / "clip")
    ours, torchs = _load(folder, cache), _load(folder, cache, runtime="torch")
    assert ours.spec.runtime.startswith("openvino ")
    assert ours.spec.runtime_reason is None
    for part in ("image", "text", "contrast", "parameters", "max_batch", "dtype"):
        assert getattr(ours.spec, part) == getattr(torchs.spec, part)
    assert ours.spec.image
    assert ours.spec.text
    rng = np.random.default_rng(0)
    for size in ((224, 224), (288, 256)):
        pictures = list(rng.integers(0, 256, (3, *size, 3), np.uint8))
        assert_all_equal(*(model.run("image", pictures, list(ours.spec.image.outputs)) for model in (ours, torchs)))
    texts = [rng.integers(2, 500, length).astype(np.int32) for length in (4, 9, 1)]
    assert_all_equal(*(model.run("text", texts, list(ours.spec.text.outputs)) for model in (ours, torchs)))
    with pytest.raises(ValueError, match="token id 600 is outside"):
        ours.run("text", [np.array([600], np.int32)], ["mean"])


def test_results_outlive_the_next_batch(tmp_path: Path, cache: Path) -> None:
    model = _load(write_checkpoint("resnet", tmp_path / "resnet"), cache)
    black, white = np.zeros((224, 224, 3), np.uint8), np.full((224, 224, 3), 255, np.uint8)
    (first,) = model.run("image", [black], ["mean"])
    kept = first["mean"].copy()
    model.run("image", [white], ["mean"])
    np.testing.assert_array_equal(first["mean"], kept)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dtype": "float16"}, "does not compute in float16"),
        ({"attention": "eager"}, "no choice of attention"),
        ({"device": "cuda"}, "on CPUs only"),
    ],
)
def test_what_openvino_does_not_do(options: dict[str, Any], reason: str, tmp_path: Path, cache: Path) -> None:
    folder = write_checkpoint("vit", tmp_path / "vit")
    with pytest.raises(StartupError, match=f"IEI_RUNTIME=openvino and these settings: not openvino: .*{reason}"):
        _load(folder, cache, runtime="openvino", **options)
    if "device" not in options:
        spec = _load(folder, cache, **options).spec
        assert spec.runtime.startswith("torch ")
        assert reason in str(spec.runtime_reason)


@pytest.mark.parametrize(("free", "streams"), [(2**40, [1, 2]), (2**18, [1])])
def test_a_large_model_gets_a_second_copy_of_its_weights_when_a_crowd_comes(
    free: int, streams: list[int], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint("vit", tmp_path / "vit")
    compiled: list[int] = []

    def counting(*arguments: Any, streams: int) -> Any:
        compiled.append(streams)
        return requests(*arguments, streams=streams)

    _load(folder, cache)  # converts it, and compiles for that, too
    requests = runtime._requests
    monkeypatch.setattr(runtime, "_requests", counting)
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8))
    expected = _load(folder, cache, threads=2).run("image", pictures, ["mean"])
    assert sorted(compiled) == [1, 2]

    compiled.clear()
    monkeypatch.setattr(runtime, "COPIED_AT_START", 0)
    monkeypatch.setattr(runtime, "free_memory", lambda: free)
    model = _load(folder, cache, threads=2)
    model.run("image", pictures[:1], ["mean"])
    assert compiled == [1]
    _same(model.run("image", pictures, ["mean"]), expected)  # while the copy is made, or without it
    _wait_for_copies()
    assert compiled == streams
    if len(streams) > 1:
        (weights,) = cache.glob("openvino/*/image.bin")
        assert resident_kib(weights) < weights.stat().st_size // 1024 // 4
    waited = _waited(monkeypatch)
    _same(model.run("image", pictures, ["mean"]), expected)
    assert len(waited) == len(streams)  # parts
    assert compiled == streams


def test_a_copy_that_can_not_be_made_costs_nobody_an_answer(
    vit: Converted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*arguments: Any, streams: int) -> Any:
        if streams > 1:
            raise RuntimeError("no memory\nat all")
        return requests(*arguments, streams=streams)

    requests = runtime._requests
    monkeypatch.setattr(runtime, "_requests", failing)
    monkeypatch.setattr(runtime, "COPIED_AT_START", 0)
    model = _load(*vit, threads=2)
    for _ in range(2):
        assert len(model.run("image", [np.zeros((224, 224, 3), np.uint8)] * 3, ["mean"])) == 3
        _wait_for_copies()
    assert [message for message in caplog.messages if "crowds" in message] == [
        "crowds get no copy of the weights of their own: no memory"
    ]


def _wait_for_copies() -> None:
    for thread in threading.enumerate():
        if thread.name == "crowds":
            thread.join(60)


def _waited(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that are waited for from now on: each computes a part of a batch."""
    waited: list[Any] = []

    def counting(request: Any) -> Any:
        waited.append(request)
        return wait(request)

    wait = runtime._wait
    monkeypatch.setattr(runtime, "_wait", counting)
    return waited


def _same(found: Sequence[Outputs], expected: Sequence[Outputs]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["mean"], other["mean"], atol=1e-5)


@pytest.mark.parametrize(("at_start", "forwards"), [(0, [1]), (2**40, [1, 2])])
def test_a_start_computes_with_each_copy_of_the_weights_once(
    at_start: int, forwards: list[int], vit: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def counting(graph: runtime.Graph, inputs: Any, outputs: Any) -> Any:
        batches.append(len(inputs[0]))
        return run(graph, inputs, outputs)

    run = runtime.Graph.run
    monkeypatch.setattr(runtime.Graph, "run", counting)
    monkeypatch.setattr(runtime, "COPIED_AT_START", at_start)
    _load(*vit, threads=2)
    assert batches[: len(forwards)] == forwards
    assert set(batches[len(forwards) :]) <= {1}  # how long one thread takes for one is looked at
    assert bool(batches[len(forwards) :]) == (len(forwards) > 1)


@pytest.mark.parametrize(("least_s", "parts"), [(0, 2), (1e9, 1)])
def test_what_takes_next_to_no_time_is_left_to_one_thread(
    least_s: float, parts: int, vit: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8))
    plain = _load(*vit, threads=1).run("image", pictures, ["mean"])
    monkeypatch.setattr(runtime, "LEAST_S", least_s)
    model = _load(*vit, threads=2)
    waited = _waited(monkeypatch)
    for one, other in zip(model.run("image", pictures, ["mean"]), plain, strict=True):
        np.testing.assert_allclose(one["mean"], other["mean"], atol=1e-5)
    assert len(waited) == parts


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (3, 1), (4, 4), (9, 4)])
def test_each_thread_computes_its_part_of_a_crowd(
    count: int, parts: int, vit: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), np.uint8))
    expected = _load(*vit, threads=1).run("image", pictures, ["mean"])
    monkeypatch.setattr(runtime, "LEAST_S", 0)
    model = _load(*vit, threads=4)
    waited = _waited(monkeypatch)
    _same(model.run("image", pictures, ["mean"]), expected)
    assert len(waited) == parts


def test_lanes_compute_at_the_same_time_what_all_threads_compute_together(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "LEAST_S", 0)
    model = _load(write_text_checkpoint("clip", tmp_path / "clip"), cache, threads=2)
    assert isinstance(model, Parallel)
    rng = np.random.default_rng(0)
    batches: list[tuple[Modality, list[Input]]] = [
        ("text", [rng.integers(2, 500, length).astype(np.int32) for length in (4, 9, 1)]),
        *(("image", list(rng.integers(0, 256, (2, *size, 3), np.uint8))) for size in ((224, 224), (288, 256))),
    ]
    assert (
        model.lanes("image", batches[-1][1][0]) == 1
    )  # nobody has sent pictures of this size: `run` compiles for them
    for modality, batch in batches:
        model.run(modality, batch[:1], ["mean"])
        assert model.lanes(modality, batch[0]) == 2
        with ThreadPoolExecutor(2) as threads:
            found = [threads.submit(model.run_on_lane, modality, batch, ["mean"]) for _ in range(12)]
        expected = model.run(modality, batch, ["mean"])
        for each in found:
            _same(each.result(), expected)
    with pytest.raises(ValueError, match="token id 600 is outside"):
        model.run_on_lane("text", [np.array([600], np.int32)], ["mean"])
    assert len(model.run_on_lane("image", batches[1][1], ["mean"])) == 2


@pytest.mark.parametrize(("least_s", "copied", "lanes"), [(0, 2**40, 2), (1e9, 2**40, 1), (0, 0, 1)])
def test_what_takes_no_time_and_what_has_no_copy_has_no_lanes(
    least_s: float, copied: int, lanes: int, vit: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "LEAST_S", least_s)
    monkeypatch.setattr(runtime, "COPIED_AT_START", copied)
    model = _load(*vit, threads=2)
    picture = np.zeros((224, 224, 3), np.uint8)
    assert isinstance(model, Parallel)
    assert model.lanes("image", picture) == lanes
    model.run("image", [picture] * 2, ["mean"])
    _wait_for_copies()
    assert model.lanes("image", picture) == (lanes if copied else 2)


def test_files_of_weights_do_not_stay_in_memory(tmp_path: Path, cache: Path) -> None:
    model = _load(write_checkpoint("vit", tmp_path / "vit"), cache)
    (weights,) = cache.glob("openvino/*/image.bin")
    assert resident_kib(weights) < weights.stat().st_size // 1024 // 4
    assert model.spec.image


def test_a_graph_that_computes_other_numbers_is_not_used_nor_made_twice(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint("vit", tmp_path / "vit")
    monkeypatch.setattr(convert, "MIN_COSINE", 1.1)
    spec = _load(folder, cache).spec
    assert spec.runtime.startswith("torch ")
    assert spec.runtime_reason == "not openvino: OpenVINO computes other numbers: cls of [3, 224, 224, 3]"
    monkeypatch.setattr("iei.runtimes.openvino.load.convert", lambda *_, **__: pytest.fail("it was converted again"))
    assert _load(folder, cache).spec.runtime_reason == spec.runtime_reason


def test_a_cache_that_cannot_be_written_leaves_the_model_to_torch(tmp_path: Path, cache: Path) -> None:
    cache.write_text("no folder")
    spec = _load(write_checkpoint("vit", tmp_path / "vit"), cache).spec
    assert spec.runtime.startswith("torch ")
    assert "set IEI_CACHE_DIR" in str(spec.runtime_reason)


@pytest.mark.server
def test_a_converter_says_why_it_failed(tmp_path: Path) -> None:
    checkpoint, into = tmp_path / "demo", tmp_path / "into"
    checkpoint.mkdir()
    into.mkdir()
    write_demo(checkpoint)
    (checkpoint / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(StartupError, match=r"model\.safetensors can't be read"):
        convert_in_a_process(checkpoint, into, allow_pickle=False)


SIGNAL_AFTER_A_MODEL = """
import os, signal, threading
import numpy as np
from openvino import opset13 as ops
from iei.runtimes.openvino.library import core, ov
inputs = ops.parameter([1, 4], np.float32)
models = [core().compile_model(ov.Model([ops.relu(inputs)], [inputs]), "CPU")]
models[0](np.zeros((1, 4), np.float32))
last = threading.Thread(target=models.clear)
last.start()
last.join()
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_after_a_model_ended_in_another_thread_does_not_end_the_process() -> None:
    ran = subprocess.run([sys.executable, "-c", SIGNAL_AFTER_A_MODEL], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "handled\n", "")
