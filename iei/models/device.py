"""Where a model computes and in which precision."""

from __future__ import annotations

import os

import torch

from iei.errors import StartupError


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `mps`, `cuda` or `cuda:N` → a device that this machine has; StartupError where it has not."""
    available = devices()
    if name == "auto":
        return torch.device(available[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in available:
        raise StartupError(f"device {name} is not available here; set IEI_DEVICE to one of: {', '.join(available)}")
    return torch.device(wanted)


def devices() -> list[str]:
    """Devices of this machine, the fastest first."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: float32, but on CUDA bfloat16 where the GPU has it, else float16."""
    if name != "auto":
        dtype = getattr(torch, name)
        assert isinstance(dtype, torch.dtype)
        return dtype
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
