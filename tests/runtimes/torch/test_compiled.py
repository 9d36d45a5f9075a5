from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch

from iei.checkpoints.checkpoint import read_checkpoint
from iei.runtimes.torch.compiled import INDUCTOR_CACHE, compiled
from iei.runtimes.torch.device import place
from iei.runtimes.torch.graphs import Graphs
from iei.runtimes.torch.load import load_towers
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.load_requests import load_request
from tests.runtimes.torch.recorders import ReplayedCalls


@pytest.fixture
def no_cache_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INDUCTOR_CACHE, "set, so that what the test sets is undone")
    monkeypatch.delenv(INDUCTOR_CACHE)


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_a_compiled_model_passes_the_gate_at_every_size(tmp_path: Path, no_cache_is_set: None) -> None:
    """Inductor compiles for a CPU here: what it is given, and what becomes of the results, is the same."""
    folder = write_checkpoint("vit-pooler", tmp_path / "vit")
    placement = place(load_request("tiny", str(folder), device="cpu"))
    model = load_towers(read_checkpoint(folder), placement, allow_pickle=False).image
    assert model
    graphs = Graphs(model.hidden, ReplayedCalls())
    pixels = torch.randint(0, 256, (5, *model.geometry.size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        work = compiled(model.hidden, tmp_path / "inductor")
        graphs.record(pixels, partial(model.outputs, names=model.side.outputs), torch.float32, work)
    assert graphs.recorded == [1, 2, 4]
    assert os.environ[INDUCTOR_CACHE] == str(tmp_path / "inductor")
    assert any((tmp_path / "inductor").rglob("*.py"))
