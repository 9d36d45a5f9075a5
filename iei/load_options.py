"""The settings that decide how models are loaded: the only ones that an engine needs, which waits for its imports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from iei.models.spec import Pooling
from iei.setting import Group, setting

Dtype = Literal["float32", "bfloat16", "float16"]
RuntimeName = Literal["auto", "torch", "openvino"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]
GpuForward = Literal["eager", "graphs", "compile"]
Quantization = Literal["none", "bitsandbytes-8bit", "bitsandbytes-4bit"]
DecodeOn = Literal["cpu", "gpu"]


class LoadOptions(Group):
    """How models are loaded. These are all the settings that a runtime uses."""

    runtime: RuntimeName = setting("Computing", "auto", "IEI_RUNTIME")
    """The library that computes. `auto`: OpenVINO on a CPU, if it gives the same vectors; else torch
    (docs/runtimes.md)."""
    dtype: Literal["auto", Dtype, "int8"] = setting("Computing", "auto", "IEI_DTYPE")
    """Data type of weights and computation. `auto`: float32 on CPU; on GPU bfloat16 if supported, else float16. `int8`:
    on CPU only (extra `int8`)."""
    calibration: Path | None = setting("Computing", None, "IEI_CALIBRATION")
    """A folder of pictures like those that will be embedded, which `int8` is fitted to. Default: drawn pictures."""
    gate: Literal["refuse", "warn"] = setting("Computing", "refuse", "IEI_GATE")
    """What to do with an `int8` model whose vectors differ too much from those of float32 (docs/runtimes.md)."""
    max_batch: int = setting("Computing", 0, "IEI_MAX_BATCH", ge=0, le=4096)
    """Maximum batch size; on a CPU, of all cores together. 0: the device's default (4 per core on a CPU, 12 per core in
    `iei embed`; 64 on a GPU)."""
    threads: int = setting("Computing", 0, "IEI_THREADS", ge=0)
    """CPU threads that compute, one forward together or several side by side. 0: one per core."""
    attention: Attention = setting("Computing", "auto", "IEI_ATTENTION")
    """Attention implementation. `auto`: `sdpa` if the model supports it."""
    quantization: Quantization = setting("Computing", "none", "IEI_QUANTIZATION")
    """Quantization of the weights in memory (CUDA only; needs the bitsandbytes package)."""
    gpu_forward: GpuForward = setting("Computing", "eager", "IEI_GPU_FORWARD")
    """How a GPU computes pictures of the model's size: kernel by kernel (`eager`), or as CUDA `graphs`, of the model as
    it is or of the `compile`d one. No other than `eager` has been measured on a GPU (docs/runtimes.md)."""
    gpu_overlap: bool = setting("Computing", False, "IEI_GPU_OVERLAP")
    """Bring a batch to a GPU while it computes the one before. Not measured on a GPU (docs/runtimes.md)."""
    gpu_pin_arenas: bool = setting("Computing", False, "IEI_GPU_PIN_ARENAS")
    """Have a GPU copy pictures from the workers' shared memory by itself. All of `IEI_ARENA_BYTES` is then in memory
    from the start. Not measured on a GPU (docs/runtimes.md)."""
    decode_on: DecodeOn = setting("Decoding", "cpu", "IEI_DECODE_ON")
    """Where plain JPEGs are decoded: by the workers (`cpu`), or by nvJPEG on the GPU that computes (`gpu`; CUDA only,
    extra `nvjpeg`; vectors differ slightly). Not measured on a GPU (docs/runtimes.md)."""
    allow_pickle: bool = setting("Computing", False, "IEI_ALLOW_PICKLE")
    """Allow `pytorch_model.bin`, read with torch's restricted unpickler, if a model has no safetensors file."""
    pooling: Literal["auto", Pooling] = setting("Vectors", "auto", "IEI_POOLING", "POOLING_STRATEGY")
    """Default pooling; only the first model must support it. `auto`: `mean` for images, the checkpoint's for texts."""
    cache_dir: Path | None = setting("Operation", None, "IEI_CACHE_DIR")
    """Directory of the demo model and of models converted for OpenVINO. Default: `~/.cache/iei`. (Hub downloads are
    stored in `HF_HOME`.)"""
