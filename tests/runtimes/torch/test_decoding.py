"""JPEGs decoded by the runtime: as the workers would have, and each for itself. On a CPU, Pillow decodes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from iei.encoded import Encoded
from iei.engine.execute import Failure, Task, execute
from iei.engine.inprocess import InProcessEngine
from iei.errors import StartupError
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits, decoded, undecoded
from iei.inputs.geometry import to_pixels
from iei.models.spec import Geometry
from iei.runtimes.api import Input, Model
from iei.runtimes.loading import load
from iei.runtimes.torch import jpeg
from iei.runtimes.torch.decoding import Decoding
from iei.runtimes.torch.device import place
from tests.apps import client_around
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.jpegs import decoded_by_pillow
from tests.load_requests import load_request
from tests.pictures import base64_of, encode, encoded, photo, photos

LIMITS = DecodeLimits(20_000_000, 65_535, PixelBudget(20_000_000), max_encoded_bytes=2**21)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def _decode(files: Sequence[Any]) -> list[Tensor]:
    return [torch.from_numpy(picture).permute(2, 0, 1) for picture in decoded_by_pillow(files)]


def _decode_colours(files: Sequence[Any], device: torch.device) -> list[Tensor]:
    """One that takes less than Pillow does."""
    pictures = _decode(files)
    if any(len(picture) == 1 for picture in pictures):
        raise RuntimeError("nvjpegDecode failed: 4")
    return pictures


def _jpeg(image: Image.Image, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, "JPEG", **{"quality": 90, "exif": exif, **options})


def _encoded(file: bytes, geometry: Geometry) -> Input:
    left = undecoded(file, LIMITS, geometry)
    assert left
    return left[0].pack()


def _pixels(file: bytes, geometry: Geometry) -> Input:
    with decoded(file, LIMITS) as image:
        return to_pixels(image, geometry)


def _damaged(file: bytes) -> bytes:
    """With a Huffman table that no decoder takes: differences of 32 bits."""
    place = file.index(b"\xff\xc4") + 4 + 1 + 16
    return file[:place] + b"\x20" + file[place + 1 :]


GEOMETRIES = [
    Geometry("exact", 64, 48, resample=2),
    Geometry("exact", 64, 64, resample=3),
    Geometry("short_side", 64, 64, resample=3, crop=(56, 56)),
    Geometry("short_side", 48, 48, resample=2, crop=(64, 56)),
    Geometry("short_side", 63, 63, resample=2),
    Geometry("exact", 64, 64, resample=2, float_resize=True),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_pixels_are_those_of_a_worker(geometry: Geometry) -> None:
    sizes = [(96, 64), (64, 96), (65, 65), (20, 31)]
    files = [_jpeg(photo(*size), turn) for turn in range(1, 9) for size in sizes]
    files += [_jpeg(photo(90, 70).convert("L")), _jpeg(photo(90, 70), subsampling="4:4:4")]
    for file in files:
        expected = _pixels(file, geometry)
        (ours,) = Decoding(geometry, _decode, "Pillow")([_encoded(file, geometry)]).numpy()
        assert (ours.shape, ours.dtype) == (expected.shape, expected.dtype)
        off = np.abs(ours.astype(np.float32) - expected)
        assert off.max() <= (0.1 if geometry.float_resize else 8)
        assert off.mean() <= (0.01 if geometry.float_resize else 0.3)


def test_a_header_that_lies_is_an_error() -> None:
    left = undecoded(_jpeg(photo(40, 30)), LIMITS, GEOMETRIES[0])
    assert left
    decoding = Decoding(GEOMETRIES[0], _decode, "Pillow")
    with pytest.raises(ValueError, match="a JPEG of 30×40 was decoded to"):
        decoding([left[0]._replace(height=40, width=30).pack()])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("vit-pooler", tmp_path_factory.mktemp("vit"))


@pytest.fixture
def decoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model on the CPU that decodes."""
    monkeypatch.setattr("iei.runtimes.torch.device._check_decoding", lambda name, device: None)
    monkeypatch.setattr(jpeg, "decode", _decode_colours)
    monkeypatch.setattr(jpeg, "software", lambda: "Pillow")
    return load(load_request("tiny", str(folder), device="cpu", decode_on="gpu"))


@pytest.fixture(scope="module")
def workers_decode(folder: Path) -> Model:
    return load(load_request("tiny", str(folder), device="cpu"))


def _cosine(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_a_model_says_that_it_decodes(decoding: Model, workers_decode: Model) -> None:
    assert decoding.spec.image
    assert decoding.spec.image.decodes
    assert decoding.spec.runtime.endswith(", Pillow)")
    assert workers_decode.spec.image
    assert not workers_decode.spec.image.decodes


def test_jpegs_of_any_sizes_are_a_batch(decoding: Model, workers_decode: Model) -> None:
    assert decoding.spec.image
    geometry = decoding.spec.image.geometry
    files = [_jpeg(each, quality=95) for each in photos().values()]
    ours = decoding.run("image", [_encoded(file, geometry) for file in files], ["cls", "patches"])
    theirs = workers_decode.run("image", [_pixels(file, geometry) for file in files], ["cls", "patches"])
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["patches"].shape == other["patches"].shape
        assert _cosine(mine["cls"], other["cls"]) > 0.9999


def test_a_damaged_jpeg_fails_alone(decoding: Model) -> None:
    assert decoding.spec.image
    sound = _jpeg(photo(60, 40))
    files = [sound, sound, _damaged(sound), sound, sound]
    tasks = [Task("image", _encoded(file, decoding.spec.image.geometry), ("mean",)) for file in files]
    outcomes = execute(decoding.run, tasks)
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, False, True, False, False]


def test_over_http(decoding: Model, workers_decode: Model) -> None:
    """The same answers, whoever decodes: what the engine's decoder can't do, workers still do."""

    async def answers(model: Model) -> list[Any]:
        batches.clear()
        async with client_around(InProcessEngine(model)) as client:
            found = []
            for files in requests:
                inputs = [base64_of(file) for file in files]
                response = await client.post("/embed", json={"inputs": inputs})
                found.append((response.status_code, response.json()))
            info = (await client.get("/info")).json()
            assert info["image"]["decode_on"] == ("gpu" if model is recorded else "cpu")
            return found

    batches: list[bool] = []

    class Recorded:
        spec = decoding.spec

        def run(self, modality: Any, batch: Sequence[Input], outputs: Any) -> Any:
            batches.extend(each.ndim == 1 for each in batch)
            return decoding.run(modality, batch, outputs)

    recorded: Any = Recorded()
    sound = _jpeg(photo(300, 200), 6)
    requests = [
        [sound],
        [sound, encoded()["png"], encoded()["jpeg progressive"]],
        [encode(photo(90, 70).convert("L"), "JPEG")],  # which this engine does not decode
        [_damaged(sound)],
        [sound[:-500]],
        [b"no picture"],
    ]
    ours = asyncio.run(answers(recorded))
    # Two sound ones, the grey one, which comes again as pixels, and the damaged one, which does not.
    assert (batches.count(True), batches.count(False)) == (4, 3)
    for (status, answer), (expected, theirs) in zip(ours, asyncio.run(answers(workers_decode)), strict=True):
        assert status == expected
        if status != 200:
            assert answer == theirs
            continue
        for mine, other in zip(answer, theirs, strict=True):
            assert _cosine(np.array(mine), np.array(other)) > 0.9999


def test_other_sizes_are_made_by_the_workers(decoding: Model) -> None:
    async def scenario() -> None:
        async with client_around(InProcessEngine(decoding), predict_resize="multiple") as client:
            response = await client.post("/predict", json={"image_data": base64_of(_jpeg(photo(250, 256)))})
            assert response.status_code == 200, response.text

    asyncio.run(scenario())


def test_a_cpu_does_not_decode() -> None:
    with pytest.raises(StartupError, match="CUDA GPUs only: set IEI_DECODE_ON=cpu for cpu"):
        place(load_request("tiny", "tiny", device="cpu", decode_on="gpu"))


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr("iei.runtimes.torch.device.not_installed", lambda *packages: list(packages))
    with pytest.raises(StartupError, match=r"IEI_DECODE_ON=gpu needs packages .* `pip install torchcodec`"):
        place(load_request("tiny", "tiny", device="cuda", decode_on="gpu"))


def test_a_library_that_does_not_decode_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(files: Any, device: torch.device) -> list[Tensor]:
        raise RuntimeError("decode_jpeg: torchcodec was not compiled with nvJPEG support\nand more")

    monkeypatch.setattr(jpeg, "decode", fail)
    with pytest.raises(
        StartupError, match=r"does not decode JPEGs on cuda:0: .* nvJPEG support: set IEI_DECODE_ON=cpu"
    ):
        jpeg.check(torch.device("cuda", 0))


def test_a_geometry_that_a_gpu_can_not_make_stays_with_the_workers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("iei.runtimes.torch.device._check_decoding", lambda name, device: None)
    monkeypatch.setattr("iei.runtimes.torch.load.why_not_decoded", lambda geometry: "torch has no such filter")
    spec = load(load_request("tiny", str(folder), device="cpu", decode_on="gpu")).spec
    assert spec.image
    assert not spec.image.decodes
    assert "tiny: workers decode all pictures, as torch has no such filter" in caplog.text


def test_torchcodec_decodes_as_pillow_does() -> None:
    """Its decoder for CPUs has the interface of the one for GPUs, and libjpeg-turbo."""
    pytest.importorskip("torchcodec")
    cpu = torch.device("cpu")
    jpeg.check(cpu)
    files = [
        Encoded.unpack(_encoded(file, GEOMETRIES[0])).file
        for file in (_jpeg(photo(75, 50), 6), _jpeg(photo(75, 50).convert("L")))
    ]
    for ours, theirs in zip(jpeg.decode(files, cpu), _decode(files), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    with pytest.raises(RuntimeError):
        jpeg.decode([files[0][:100]], cpu)


@needs_gpu
@pytest.mark.parametrize("overlap", [False, True])
def test_jpegs_on_a_gpu_give_the_vectors_of_a_cpu(folder: Path, workers_decode: Model, overlap: bool) -> None:
    pytest.importorskip("torchcodec")
    options: dict[str, Any] = {"device": "cuda", "dtype": "float32", "decode_on": "gpu", "gpu_overlap": overlap}
    model = load(load_request("tiny", str(folder), **options))
    assert model.spec.image
    geometry = model.spec.image.geometry
    files = [_jpeg(each, turn) for turn in range(1, 9) for each in photos().values()]
    files += [_jpeg(each.convert("L")) for each in photos().values()]
    files += [_jpeg(each, subsampling="4:4:4", restart_marker_blocks=5) for each in photos().values()]
    for start in range(0, len(files), 16):
        part = files[start : start + 16]
        ours = model.run("image", [_encoded(file, geometry) for file in part], ["cls", "mean"])
        theirs = workers_decode.run("image", [_pixels(file, geometry) for file in part], ["cls", "mean"])
        for mine, other in zip(ours, theirs, strict=True):
            assert _cosine(mine["cls"], other["cls"]) > 0.999
            assert _cosine(mine["mean"], other["mean"]) > 0.999


@needs_gpu
def test_pixels_of_a_gpu_are_near_those_of_a_worker() -> None:
    pytest.importorskip("torchcodec")
    device = torch.device("cuda", 0)
    for geometry in GEOMETRIES:
        make = Decoding(geometry, lambda files: jpeg.decode(files, device), "torchcodec")
        for image in photos().values():
            file = _jpeg(image, 6)
            (ours,) = make([_encoded(file, geometry)]).cpu().numpy()
            # Colours are sampled up in another way than libjpeg's: sharp edges between colours differ most.
            assert np.abs(ours.astype(np.float32) - _pixels(file, geometry)).mean() < 2


@needs_gpu
def test_a_gpu_resizes_whatever_is_sent_to_it() -> None:
    pytest.importorskip("torchcodec")
    device = torch.device("cuda", 0)
    for geometry in (Geometry("exact", 224, 224, resample=3), Geometry("exact", 224, 224, resample=2)):
        make = Decoding(geometry, lambda files: jpeg.decode(files, device), "torchcodec")
        for size in ((224 * 32, 2), (2, 224 * 32), (7000, 2000), (1, 1)):
            assert make([_encoded(_jpeg(photo(*size)), geometry)]).shape == (1, 224, 224, 3)


@needs_gpu
def test_damaged_jpegs_on_a_gpu_fail_alone_and_leave_it_alive(folder: Path) -> None:
    pytest.importorskip("torchcodec")
    model = load(load_request("tiny", str(folder), device="cuda", decode_on="gpu"))
    assert model.spec.image
    geometry = model.spec.image.geometry
    sound = _jpeg(photo(500, 375))
    scan = sound.index(b"\xff\xda") + 14
    noise = np.random.default_rng(0)
    damaged = [_damaged(sound)]
    for _ in range(200):
        body = bytearray(sound)
        for at in noise.integers(scan, len(sound) - 2, 20):
            body[at] = noise.integers(0, 0xFF)  # never the first byte of a marker
        damaged += [bytes(body)] if undecoded(bytes(body), LIMITS, geometry) else []
    assert len(damaged) > 100
    expected = execute(model.run, [Task("image", _encoded(sound, geometry), ("mean",))])[0]
    assert not isinstance(expected, Failure)
    for file in damaged:
        tasks = [Task("image", _encoded(each, geometry), ("mean",)) for each in (sound, file, sound)]
        for outcome in execute(model.run, tasks)[::2]:
            assert not isinstance(outcome, Failure), outcome.message
            assert _cosine(outcome["mean"], expected["mean"]) > 0.999
