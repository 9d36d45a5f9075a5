from __future__ import annotations

from typing import Any

import pytest
import torch

from iei.errors import StartupError
from iei.models.catalog import LoadRequest
from iei.runtimes.torch.device import devices, place
from tests.load_requests import load_request


def _request(**options: Any) -> LoadRequest:
    return load_request("tiny", "tiny", **{"device": "cpu", **options})


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, as far as torch is asked about them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


def test_cpu_computes_float32_by_itself() -> None:
    placement = place(_request())
    assert (placement.device, placement.dtype) == (torch.device("cpu"), torch.float32)


@pytest.mark.usefixtures("two_gpus")
def test_gpu_comes_first_and_computes_bfloat16_by_itself() -> None:
    placement = place(_request(device="auto"))
    assert (placement.device, placement.dtype) == (torch.device("cuda:0"), torch.bfloat16)
    assert devices()[:2] == ["cuda:0", "cuda:1"]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("name", "device"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_the_device_that_was_named(name: str, device: str) -> None:
    assert place(_request(device=name)).device == torch.device(device)


@pytest.mark.usefixtures("two_gpus")
def test_each_gpu_is_asked_about_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old GPU beside a new one: torch answers for the current device."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    new = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current == [new])
    assert place(_request(device="cuda:1")).dtype == torch.bfloat16


@pytest.mark.usefixtures("two_gpus")
def test_old_gpu_computes_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert place(_request(device="cuda")).dtype == torch.float16


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_too_many_is_refused_with_those_that_are_here() -> None:
    with pytest.raises(
        StartupError, match=r"Device cuda:2 is not here: set IEI_DEVICE to one of cuda:0, cuda:1, .*cpu\."
    ):
        place(_request(device="cuda:2"))


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"device": "tpu"}, "IEI_DEVICE"),
        ({"attention": "flash_attention_2"}, "only on CUDA, in bfloat16 or float16"),
        ({"quantization": "bitsandbytes-8bit"}, "computes only on CUDA"),
    ],
)
def test_what_cannot_be_had_is_refused(options: dict[str, str], advice: str) -> None:
    with pytest.raises(StartupError, match=advice):
        place(_request(**options))


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("options", "package"),
    [({"attention": "flash_attention_2"}, "flash_attn"), ({"quantization": "bitsandbytes-4bit"}, "bitsandbytes")],
)
def test_what_is_not_installed_is_named(options: dict[str, str], package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iei.machine.find_spec", lambda name: None)
    with pytest.raises(StartupError, match=f"run `pip install .*{package}"):
        place(_request(device="cuda", **options))
