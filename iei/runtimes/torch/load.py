"""Checkpoint → `TorchRuntime`: the module that the table of runtimes names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from iei.checkpoints.checkpoint import Checkpoint, TextFiles
from iei.checkpoints.text_architectures import TEXT_ARCHITECTURES
from iei.checkpoints.vision_architectures import VISION_ARCHITECTURES
from iei.encoded import why_not_decoded
from iei.machine import cache_folder
from iei.models.catalog import LoadRequest
from iei.models.spec import Geometry
from iei.runtimes.torch import jpeg, pinning
from iei.runtimes.torch.decoding import Decoding
from iei.runtimes.torch.device import Placement, place
from iei.runtimes.torch.graphs import CudaRecorder
from iei.runtimes.torch.overlapping import CudaStreams, OverlappingRuntime
from iei.runtimes.torch.runtime import TorchRuntime, Towers
from iei.runtimes.torch.text_head import load_head
from iei.runtimes.torch.text_model import TextModel
from iei.runtimes.torch.two_towers import load_two_towers
from iei.runtimes.torch.vision_model import VisionModel
from iei.runtimes.torch.weights import load_weights

log = logging.getLogger("iei.engine")


def check(request: LoadRequest) -> None:
    """Checks the device and the options of `request` on this machine.

    Raises:
        StartupError: one of them can't be had here.
    """
    place(request)


def load(checkpoint: Checkpoint, request: LoadRequest) -> TorchRuntime:
    """Loads the weights of `checkpoint` onto the requested device.

    Raises:
        StartupError: weights are missing or broken, or the device or an option can't be had; one sentence.
    """
    placement, options = place(request), request.options
    is_gpu = placement.device.type == "cuda"
    towers = load_towers(checkpoint, placement, allow_pickle=options.allow_pickle)
    recorder = CudaRecorder(placement.device) if is_gpu and options.gpu_forward != "eager" else None
    kind: Callable[..., TorchRuntime] = partial(TorchRuntime, towers, placement)
    if is_gpu and options.gpu_overlap:
        streams = CudaStreams(placement.device, recorder.stream if recorder else None)
        kind = partial(OverlappingRuntime, towers, placement, streams)
    return kind(
        max_batch=options.max_batch,
        threads=options.threads,
        recorder=recorder,
        compile_in=cache_folder(options.cache_dir) / "inductor" if options.gpu_forward == "compile" else None,
        decoding=_decoding(checkpoint, request, placement) if options.decode_on == "gpu" else None,
    )


def device_memory(name: str) -> int:
    """Bytes that torch has allocated on `cuda:N` or `mps`, for weights and for forwards."""
    return torch.mps.current_allocated_memory() if name == "mps" else torch.cuda.memory_allocated(name)


def pin(name: str, memory: npt.NDArray[np.uint8]) -> Callable[[], None] | None:
    """As `iei.runtimes.select.pin`."""
    return pinning.pin(name, memory)


def load_towers(checkpoint: Checkpoint, placement: Placement, *, allow_pickle: bool) -> Towers:
    """Loads the sides that the checkpoint has.

    Args:
        checkpoint: of any supported family.
        placement: where and how to compute.
        allow_pickle: whether the weights may be in a pickle.

    Raises:
        StartupError: weights are missing or broken.
    """
    match checkpoint:
        case Checkpoint(geometry=Geometry() as geometry, text=TextFiles() as files):
            return Towers(
                *load_two_towers(
                    checkpoint.folder, checkpoint.model_type, geometry, files, placement, allow_pickle=allow_pickle
                )
            )
        case Checkpoint(geometry=Geometry() as geometry):
            return _load_vision(checkpoint, geometry, placement, allow_pickle)
        case Checkpoint(text=TextFiles() as files):
            return _load_text(checkpoint, files, placement, allow_pickle)
    raise ValueError(f"{checkpoint.folder} takes neither pictures nor texts")


def _decoding(checkpoint: Checkpoint, request: LoadRequest, placement: Placement) -> Decoding | None:
    """Returns what makes pictures of JPEGs on the placement's device; None if the checkpoint's can't be made there.

    Raises:
        StartupError: the device does not decode.
    """
    if checkpoint.geometry is None:
        return None
    if reason := why_not_decoded(checkpoint.geometry):
        log.warning("%s: workers decode all pictures, as %s", request.entry.name, reason)
        return None
    jpeg.check(placement.device)
    return Decoding(checkpoint.geometry, partial(jpeg.decode, device=placement.device), jpeg.software())


def _load_vision(checkpoint: Checkpoint, geometry: Geometry, placement: Placement, allow_pickle: bool) -> Towers:
    architecture = VISION_ARCHITECTURES[checkpoint.model_type]
    weights = load_weights(checkpoint.folder, architecture, placement, allow_pickle=allow_pickle)
    return Towers(weights.module, image=VisionModel(weights, architecture, geometry, placement))


def _load_text(checkpoint: Checkpoint, files: TextFiles, placement: Placement, allow_pickle: bool) -> Towers:
    architecture = TEXT_ARCHITECTURES[checkpoint.model_type]
    weights = load_weights(checkpoint.folder, architecture, placement, allow_pickle=allow_pickle)
    hidden_size = weights.module.config.hidden_size
    head = load_head(files.pipeline, hidden_size, placement.device, allow_pickle=allow_pickle)
    return Towers(weights.module, text=TextModel(weights, architecture, files, placement, head=head))
