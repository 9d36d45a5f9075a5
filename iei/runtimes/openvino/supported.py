"""What OpenVINO computes here, as one table and a few conditions. Imports no library: it is asked before the choice."""

from __future__ import annotations

from collections.abc import Mapping

from iei.checkpoints.checkpoint import Checkpoint
from iei.machine import cpu_has, is_cpu, not_installed
from iei.models.catalog import LoadRequest

NOT_CONVERTED: Mapping[str, str] = {
    "gemma3_text": "the masks of gemma3_text can't be traced",
    "modernbert": "in a batch, modernbert's shorter texts get other vectors",
}
"""`model_type` → why it stays with torch. All others are held to transformers by tests/runtimes."""

DTYPES: Mapping[str, tuple[str, ...]] = {
    "auto": (),
    "float32": (),
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    # Without one of these, products of int8 are added in 16 bits, which overflow.
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"),
}
"""Type → the flags of CPUs that compute in it; none: all do."""


def refusal(request: LoadRequest, checkpoint: Checkpoint | None = None) -> str | None:
    """Why OpenVINO does not compute what is requested, of a checkpoint that need not be known yet; None if it does."""
    options = request.options
    if not is_cpu(request.device):
        return "it computes on CPUs only"
    if options.dtype not in DTYPES:
        return f"it does not compute in {options.dtype}"
    if (flags := DTYPES[options.dtype]) and not cpu_has(*flags):
        return f"this CPU does not compute in {options.dtype} (it has none of {', '.join(flags)})"
    if options.attention != "auto" or options.quantization != "none":
        return "it has no choice of attention and of quantization"
    if options.decode_on == "gpu":
        return "it does not decode pictures on a GPU"
    if not_installed("openvino"):
        return "it is not installed"
    if options.dtype == "int8" and not_installed("nncf"):
        return "int8 needs the package nncf: pip install 'image-embedding-inference[int8]'"
    if checkpoint and options.dtype == "int8" and not checkpoint.geometry:
        return "int8 is calibrated on pictures, which the model does not take"
    return NOT_CONVERTED.get(checkpoint.model_type) if checkpoint else None
