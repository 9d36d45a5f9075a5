from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iei.checkpoints.checkpoint import read_checkpoint
from iei.errors import StartupError
from iei.runtimes.torch.load import load
from iei.runtimes.torch.runtime import TorchRuntime
from tests.checkpoints.text_checkpoints import write_text_checkpoint
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.load_requests import load_request


def _load(folder: Path, **options: Any) -> TorchRuntime:
    return load(read_checkpoint(folder), load_request("tiny", str(folder), device="cpu", **options))


def test_attention_on_request(tmp_path: Path) -> None:
    assert _load(write_checkpoint("vit", tmp_path), attention="eager").software.endswith("(eager)")


def test_attention_that_the_model_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"can't be loaded as Swinv2Model .*scaled_dot_product_attention"):
        _load(write_checkpoint("swinv2", tmp_path), attention="sdpa")


def test_warming_up_on_a_cpu_replaces_the_linear_layers_and_says_so(tmp_path: Path) -> None:
    runtime = _load(write_checkpoint("vit", tmp_path))
    before = runtime.parameters
    runtime.warm_up()
    assert runtime.software.endswith("(sdpa, oneDNN)")
    assert runtime.parameters == before


def test_other_precisions_keep_torchs_linear_layers(tmp_path: Path) -> None:
    runtime = _load(write_checkpoint("vit", tmp_path), dtype="bfloat16")
    runtime.warm_up()
    assert runtime.software.endswith("(sdpa)")
    assert runtime.dtype == "bfloat16"


def test_offers_the_sides_that_the_checkpoint_has(tmp_path: Path) -> None:
    both = _load(write_text_checkpoint("clip", tmp_path / "clip"))
    assert both.image is not None
    assert both.text is not None
    texts = _load(write_text_checkpoint("bert", tmp_path / "bert"))
    assert texts.image is None
    assert texts.text is not None
