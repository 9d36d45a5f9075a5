"""Where a model computes, in which precision and with which kernels: settings → what this machine has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from iei.errors import StartupError
from iei.load_options import Attention, DecodeOn, Dtype, Quantization
from iei.machine import not_installed
from iei.models.catalog import LoadRequest


@dataclass(frozen=True, slots=True)
class Placement:
    """How a model is to compute, all of it possible on this machine."""

    device: torch.device
    dtype: torch.dtype
    attention: Attention
    """`auto`: the fastest that the model's class has."""
    quantization: Quantization


def place(request: LoadRequest) -> Placement:
    """Returns the request's placement, and makes its GPU torch's current device.

    Raises:
        StartupError: this machine lacks the device, or what the options need; with what it has.
    """
    device = pick_device(request.device)
    if device.type == "cuda":
        # What torch says of "the" GPU, and the memory that it pins, are the current device's.
        torch.cuda.set_device(device)
    dtype = pick_dtype(request.options.dtype, device)
    _check_attention(request.options.attention, device, dtype)
    _check_quantization(request.options.quantization, device)
    _check_decoding(request.options.decode_on, device)
    return Placement(device, dtype, request.options.attention, request.options.quantization)


def pick_device(name: str) -> torch.device:
    """Returns the device for `auto`, `cpu`, `mps`, `cuda` or `cuda:N`.

    Raises:
        StartupError: it is not on this machine; with the devices that are.
    """
    available = devices()
    wanted = {"auto": available[0], "cuda": "cuda:0"}.get(name, name)
    if wanted not in available:
        raise StartupError(f"Device {name} is not here: set IEI_DEVICE to one of {', '.join(available)}.")
    return torch.device(wanted)


def devices() -> list[str]:
    """Returns the devices of this machine, the fastest first."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def pick_dtype(name: Literal["auto", Dtype, "int8"], device: torch.device) -> torch.dtype:
    """Returns the dtype. `auto`: float32; on CUDA bfloat16 where the GPU computes it itself, else float16.

    `int8` does not get here: the table of runtimes refuses it for torch.
    """
    if name == "auto":
        name = "float32"
        if device.type == "cuda":
            # Emulated bfloat16 would say yes on GPUs that compute it slower than float32.
            name = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _check_attention(name: Attention, device: torch.device, dtype: torch.dtype) -> None:
    if name != "flash_attention_2":
        return
    if device.type != "cuda" or dtype == torch.float32:
        raise StartupError(
            "flash_attention_2 computes only on CUDA, in bfloat16 or float16: "
            f"set IEI_ATTENTION=sdpa for {device.type} in {str(dtype).removeprefix('torch.')}."
        )
    _check_installed("flash_attention_2", "flash_attn")


def _check_quantization(name: Quantization, device: torch.device) -> None:
    if name == "none":
        return
    if device.type != "cuda":
        raise StartupError(f"{name} computes only on CUDA: set IEI_QUANTIZATION=none for {device.type}.")
    _check_installed(name, "bitsandbytes", "accelerate")


def _check_decoding(name: DecodeOn, device: torch.device) -> None:
    if name == "cpu":
        return
    if device.type != "cuda":
        raise StartupError(f"JPEGs are decoded on CUDA GPUs only: set IEI_DECODE_ON=cpu for {device.type}.")
    _check_installed("IEI_DECODE_ON=gpu", "torchcodec")


def _check_installed(what: str, *packages: str) -> None:
    if missing := not_installed(*packages):
        raise StartupError(f"{what} needs packages that are not installed: run `pip install {' '.join(missing)}`.")
