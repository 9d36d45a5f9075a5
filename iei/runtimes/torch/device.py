"""Where a model computes, in which precision, and with which kernels: settings → what this machine really has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from iei.errors import StartupError
from iei.models.spec import LoadRequest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")
QUANTIZATIONS = ("none", "bitsandbytes-8bit", "bitsandbytes-4bit")


@dataclass(frozen=True, slots=True)
class Placement:
    """How a model is to compute, all of it possible on this machine."""

    device: torch.device
    dtype: torch.dtype
    attention: str
    """`auto`: the fastest that the model's class has."""
    quantization: str


def place(request: LoadRequest) -> Placement:
    """Raises StartupError for what this machine has not, saying what it has."""
    device = pick_device(request.device)
    if device.type == "cuda":
        # What torch says of "the" GPU, and the memory that it pins, are the current device's.
        torch.cuda.set_device(device)
    dtype = pick_dtype(request.dtype, device)
    _check_attention(request.attention, device, dtype)
    _check_quantization(request.quantization, device)
    return Placement(device, dtype, request.attention, request.quantization)


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `mps`, `cuda` or `cuda:N` → a device that is here."""
    available = devices()
    wanted = {"auto": available[0], "cuda": "cuda:0"}.get(name, name)
    if wanted not in available:
        raise StartupError(f"Device {name} is not here: set IEI_DEVICE to one of {', '.join(available)}.")
    return torch.device(wanted)


def devices() -> list[str]:
    """Devices of this machine, the fastest first."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: float32, but on CUDA bfloat16 where the GPU computes it, else float16."""
    if name == "auto":
        name = "float32"
        if device.type == "cuda":
            # Emulated bfloat16 would say yes on GPUs that compute it slower than float32.
            name = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    _check_known("IEI_DTYPE", name, DTYPES)
    return DTYPES[name]


def _check_attention(name: str, device: torch.device, dtype: torch.dtype) -> None:
    _check_known("IEI_ATTENTION", name, ATTENTIONS)
    if name != "flash_attention_2":
        return
    if device.type != "cuda" or dtype == torch.float32:
        raise StartupError(
            "flash_attention_2 computes only on CUDA, in bfloat16 or float16: "
            f"set IEI_ATTENTION=sdpa for {device.type} in {str(dtype).removeprefix('torch.')}."
        )
    _check_installed("flash_attention_2", "flash_attn")


def _check_quantization(name: str, device: torch.device) -> None:
    _check_known("IEI_QUANTIZATION", name, QUANTIZATIONS)
    if name == "none":
        return
    if device.type != "cuda":
        raise StartupError(f"{name} computes only on CUDA: set IEI_QUANTIZATION=none for {device.type}.")
    _check_installed(name, "bitsandbytes", "accelerate")


def _check_known(setting: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise StartupError(f"{setting}={name} is not known: choose one of {', '.join(known)}.")


def _check_installed(what: str, *packages: str) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise StartupError(f"{what} needs what is not installed here: run `pip install {' '.join(missing)}`.")
