"""bfloat16, int8, and the gate between int8 and clients."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iei.errors import StartupError
from iei.machine import cpu_has
from iei.models.spec import Quality
from iei.runtimes.loading import load
from iei.runtimes.openvino import convert
from iei.runtimes.openvino.drawings import drawings
from iei.runtimes.openvino.load import pass_gate
from iei.runtimes.openvino.supported import DTYPES, refusal
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.load_requests import load_request
from tests.pictures import photos
from tests.runtimes.torch.parity import cosine

GOOD = Quality(median_cosine=0.9995, low_cosine=0.995, neighbours=0.97, pictures=128, calibration="drawn")


@pytest.mark.skipif(not cpu_has(*DTYPES["bfloat16"]), reason="needs a CPU that computes in bfloat16")
def test_bfloat16_is_near_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iei.runtimes.openvino.load.convert", convert.convert)
    folder = write_checkpoint("vit", tmp_path / "vit")
    rounded, exact = (
        load(load_request("tiny", str(folder), runtime="openvino", dtype=dtype, cache_dir=tmp_path / "cache"))
        for dtype in ("bfloat16", "float32")
    )
    assert (rounded.spec.dtype, exact.spec.dtype) == ("bfloat16", "float32")
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8))
    ours, theirs = (
        np.stack([row["mean"] for row in each.run("image", pictures, ["mean"])]) for each in (rounded, exact)
    )
    assert cosine(ours, theirs).min() > 0.999
    assert np.abs(ours - theirs).max() > 1e-5, "it was float32"
    assert len(list((tmp_path / "cache" / "openvino").glob("*/converted.json"))) == 1, "converted for each precision"


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_cpu_without_it_is_told(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iei.runtimes.openvino.supported.cpu_has", lambda *flags: False)
    reason = refusal(load_request("tiny", "tiny", device="cpu", dtype=dtype))
    assert reason
    assert f"this CPU does not compute in {dtype} (it has none of avx512_" in reason


def test_int8_is_for_pictures_and_for_openvino(tmp_path: Path) -> None:
    folder = write_checkpoint("vit", tmp_path / "vit")
    with pytest.raises(StartupError, match=r"not torch: it does not compute in int8 .*IEI_DEVICE=cpu"):
        load(load_request("tiny", str(folder), dtype="int8"))


def test_a_good_model_passes_the_gate() -> None:
    pass_gate(load_request("tiny", "tiny", dtype="int8"), GOOD)


@pytest.mark.parametrize("low", [{"median_cosine": 0.9989}, {"low_cosine": 0.989}, {"neighbours": 0.949}])
def test_each_figure_is_enough_to_be_refused(low: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    quality = replace(GOOD, **low)
    with pytest.raises(StartupError, match=r"differs too much from float32: cosines 0\.99.*IEI_GATE=warn"):
        pass_gate(load_request("tiny", "tiny", dtype="int8"), quality)
    with caplog.at_level(logging.WARNING, "iei.engine"):
        pass_gate(load_request("tiny", "tiny", dtype="int8", gate="warn"), quality)
    assert "differs too much" in caplog.text


def test_drawings_differ_and_stay_the_same() -> None:
    first, again = ([np.asarray(each) for each in drawings(6, (48, 32), seed=1)] for _ in range(2))
    assert {each.shape for each in first} == {(32, 48, 3)}
    np.testing.assert_array_equal(first, again)
    assert len({each.tobytes() for each in first}) == 6


@pytest.mark.long
@pytest.mark.server
def test_int8_is_fitted_to_pictures_and_kept(tmp_path: Path) -> None:
    """Of a tiny untrained model, vectors say nothing about quality: told to be served, whatever the gate says."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    options: dict[str, Any] = {"runtime": "openvino", "dtype": "int8", "gate": "warn", "cache_dir": tmp_path / "cache"}
    request = load_request("tiny", str(write_checkpoint("vit", tmp_path / "vit")), **options, calibration=pictures)
    with pytest.raises(StartupError, match=r"has 0 pictures that can be read: 64 is the fewest"):
        load(request)
    for number, picture in enumerate(list(photos().values()) * 12):
        picture.convert("RGB").rotate(5 * number).resize((128, 128)).save(pictures / f"{number}.jpg")
    first, again = load(request), load(request)
    assert first.spec.dtype == "int8"
    assert first.spec.quality == again.spec.quality
    assert first.spec.quality
    assert first.spec.quality.calibration == "pictures"
    assert first.spec.quality.median_cosine > 0.98
