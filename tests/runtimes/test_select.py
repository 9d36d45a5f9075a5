"""A second runtime is a module and one row: here, one that doubles every vector of torch's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from iei.checkpoints.checkpoint import Checkpoint
from iei.errors import StartupError
from iei.models.catalog import LoadRequest
from iei.models.spec import Modality
from iei.runtimes import select
from iei.runtimes.api import Input, Outputs, Runtime
from iei.runtimes.loading import load as load_model
from iei.runtimes.select import RUNTIMES, RuntimeRow
from iei.runtimes.torch.load import load as load_torch
from tests.checkpoints.text_checkpoints import write_text_checkpoint
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.load_requests import load_request


class Doubled:
    """Implements `Runtime` with another one."""

    quality = None

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.device, self.dtype = runtime.device, runtime.dtype
        self.software = "doubler 1.0"
        self.parameters = runtime.parameters
        self.max_batch = 7
        self.image, self.text, self.contrast = runtime.image, runtime.text, runtime.contrast

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        rows = self._runtime.run(modality, batch, outputs)
        return [{name: 2 * vectors for name, vectors in row.items()} for row in rows]

    def warm_up(self) -> None:
        self._runtime.warm_up()


def check(request: LoadRequest) -> None:
    """What a runtime's module has: this module is the second runtime."""
    if request.device == "cuda":
        raise StartupError("doubler has no GPU.")


def load(checkpoint: Checkpoint, request: LoadRequest) -> Doubled:
    """The other thing that a runtime's module has."""
    return Doubled(load_torch(checkpoint, request))


@pytest.fixture
def second_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes texts; everything else is left to torch."""
    row = RuntimeRow(
        "doubler", lambda request, checkpoint: "it takes texts only" if checkpoint and not checkpoint.text else None
    )
    monkeypatch.setitem(sys.modules, "doubler", sys.modules[__name__])
    _use({"doubler": row, "torch": RUNTIMES["torch"]}, monkeypatch)


def _use(runtimes: Mapping[str, RuntimeRow], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iei.runtimes.select.RUNTIMES", runtimes)


def test_a_module_and_a_row_are_a_second_runtime(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = str(write_text_checkpoint("clip", tmp_path))
    to_load = load_request("tiny", folder, threads=1)
    ids, pixels = np.array([3, 5, 8], np.int32), np.full((224, 224, 3), 77, np.uint8)
    torch_model = load_model(to_load)
    request.getfixturevalue("second_runtime")
    model = load_model(load_request("tiny", folder, runtime="auto", threads=1))
    assert (model.spec.runtime, model.spec.max_batch) == ("doubler 1.0", 7)
    assert model.spec.image == torch_model.spec.image
    assert model.spec.text == torch_model.spec.text
    inputs: dict[Modality, Input] = {"text": ids, "image": pixels}
    for modality, array in inputs.items():
        (ours,), (torchs,) = (each.run(modality, [array], ["pooler", "tokens"]) for each in (model, torch_model))
        for name, vectors in torchs.items():
            np.testing.assert_allclose(ours[name], 2 * vectors, atol=1e-5)


@pytest.mark.usefixtures("second_runtime")
def test_a_row_that_does_not_take_a_checkpoint_leaves_it_to_the_next(tmp_path: Path) -> None:
    spec = load_model(load_request("tiny", str(write_checkpoint("vit", tmp_path)), runtime="auto", threads=1)).spec
    assert spec.runtime.startswith("torch ")
    assert spec.runtime_reason == "not doubler: it takes texts only"


def test_a_checkpoint_that_no_row_takes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "doubler", sys.modules[__name__])
    _use(
        {"picky": RuntimeRow("doubler", lambda request, checkpoint: "it takes none" if checkpoint else None)},
        monkeypatch,
    )
    with pytest.raises(StartupError, match=r"can't be computed with IEI_RUNTIME=auto .*: not picky: it takes none\."):
        load_model(load_request("tiny", str(write_checkpoint("vit", tmp_path)), runtime="auto", device="cpu"))


def test_a_device_that_no_runtime_has_is_refused_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "doubler", sys.modules[__name__])
    _use({"doubler": RuntimeRow("doubler", lambda request, checkpoint: None)}, monkeypatch)
    monkeypatch.setattr("iei.runtimes.loading.find_folder", lambda request: pytest.fail("it was downloaded"))
    with pytest.raises(StartupError, match="doubler has no GPU"):
        load_model(load_request("tiny", "org/vit", runtime="auto", device="cuda"))


def test_of_several_refusals_the_one_that_was_computed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch has no int8 at all: that must not hide what the gate found out about OpenVINO's."""

    def too_different(checkpoint: Checkpoint, request: LoadRequest) -> Runtime:
        raise StartupError("the gate: 84.6 % of neighbours are kept.")

    gated = RuntimeRow("gated", lambda request, checkpoint: None)
    monkeypatch.setitem(sys.modules, "gated", SimpleNamespace(check=check, load=too_different))
    _use({"gated": gated, "torch": RUNTIMES["torch"]}, monkeypatch)
    with pytest.raises(StartupError, match=r"^the gate: 84\.6 %"):
        load_model(load_request("tiny", str(write_checkpoint("vit", tmp_path)), runtime="auto", dtype="int8"))


def test_memory_is_pinned_by_the_runtime_that_can(second_runtime: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def undo() -> None:
        asked.append("undone")

    def pins(device: str, memory: object) -> Callable[[], None] | None:
        asked.append(device)
        return undo

    memory = np.zeros(8, np.uint8)
    monkeypatch.setattr("iei.runtimes.torch.load.pin", lambda device, memory: None)
    monkeypatch.setattr(sys.modules[__name__], "pin", lambda device, memory: None, raising=False)
    assert select.pin("cuda:0", memory) is None
    monkeypatch.setattr(sys.modules[__name__], "pin", pins)
    assert select.pin("cuda:0", memory) is undo
    assert asked == ["cuda:0"]
