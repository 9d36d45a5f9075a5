"""Checkpoint → `OpenVINORuntime`: the module that the table of runtimes names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iei.checkpoints.checkpoint import Checkpoint
from iei.checkpoints.files import EXPORTED
from iei.checkpoints.folders import local_folder
from iei.errors import StartupError
from iei.load_options import LoadOptions
from iei.machine import cache_folder
from iei.models.catalog import LoadRequest
from iei.models.spec import Quality
from iei.runtimes.openvino.cache import kept, key, quantized_key
from iei.runtimes.openvino.converted import DigestOf, read_converted
from iei.runtimes.openvino.converter import check_installed, convert, quantize
from iei.runtimes.openvino.digests import Digests
from iei.runtimes.openvino.runtime import OpenVINORuntime

log = logging.getLogger("iei.engine")

RECORD = "digests"
"""Name of the record of digests, beside the converted models."""

MEDIAN_COSINE, LOW_COSINE, NEIGHBOURS = 0.999, 0.99, 0.95
"""The gate: least values of a `Quality` with which int8 is served."""


def check(request: LoadRequest) -> None:
    """Checks that a model of the hub, where none is converted, can be converted here, before it is downloaded.

    Raises:
        StartupError: torch or transformers is not installed.
    """
    if local_folder(request.entry.id) is None:
        check_installed(request.entry.id)


def load(checkpoint: Checkpoint, request: LoadRequest) -> OpenVINORuntime:
    """Compiles the converted model of `checkpoint`, which is made first if there is none.

    Raises:
        StartupError: it can't be converted, quantised, kept or compiled; one sentence.
    """
    options = request.options
    digests = _digests(options)
    folder = checkpoint.folder / EXPORTED
    if not checkpoint.is_exported:
        check_installed(request.entry.id)
        make = partial(convert, checkpoint.folder, allow_pickle=options.allow_pickle)
        folder = _kept(options, key(checkpoint.folder, digests.of), make, digests.of)
    try:
        # What is in the cache has just been checked.
        converted = read_converted(folder, digest_of=digests.of if checkpoint.is_exported else None)
        if converted.refusal:
            raise StartupError(converted.refusal)
        if options.dtype == "int8":
            make = partial(quantize, checkpoint.folder, folder, options.calibration)
            folder = _kept(options, quantized_key(folder, options.calibration), make, digests.of)
            converted = read_converted(folder, digest_of=None)
            pass_gate(request, converted.quality)
        return OpenVINORuntime(folder, converted, checkpoint.geometry, request)
    except (OSError, ValueError, RuntimeError) as error:
        raise StartupError(f"OpenVINO can't load {folder} ({str(error).splitlines()[0]}): convert it again.") from error
    finally:
        digests.save()


def pass_gate(request: LoadRequest, quality: Quality | None) -> None:
    """Compares a quantised model's figures with what is served.

    Raises:
        StartupError: they are too low, and `IEI_GATE` is not `warn`.
    """
    assert quality is not None
    log.info("%s in int8, compared with float32: %s", request.entry.name, quality)
    if quality.median_cosine >= MEDIAN_COSINE and quality.low_cosine >= LOW_COSINE and quality.neighbours >= NEIGHBOURS:
        return
    fault = (
        f"{request.entry.id} in int8 differs too much from float32: {quality}; at least {MEDIAN_COSINE}, {LOW_COSINE} "
        f"and {NEIGHBOURS:.0%} are served"
    )
    if request.options.gate == "refuse":
        raise StartupError(
            f"{fault}. Set IEI_CALIBRATION to a folder of pictures like those that you embed, IEI_DTYPE=bfloat16, or "
            "IEI_GATE=warn to serve it all the same."
        )
    log.warning("%s", fault)


def device_memory(name: str) -> int:
    """Nothing: OpenVINO computes on the CPU only."""
    return 0


def pin(name: str, memory: npt.NDArray[np.uint8]) -> None:
    """Does nothing: OpenVINO computes where the memory is."""


def _kept(options: LoadOptions, name: str, make: Callable[[Path], object], digest_of: DigestOf) -> Path:
    """The folder `name` of the cache, with what `make` has made.

    Raises:
        StartupError: the cache can't be written, or `make` failed.
    """
    cache = _cache(options)
    try:
        return kept(cache / name, make, digest_of)
    except OSError as error:
        raise StartupError(
            f"The converted model can't be kept in {cache} ({error.strerror}): set IEI_CACHE_DIR to another folder."
        ) from error


def _digests(options: LoadOptions) -> Digests:
    try:
        return Digests(_cache(options) / RECORD)
    except RuntimeError:  # this user has no home, nor is a folder set: exported models are served all the same
        return Digests(None)


def _cache(options: LoadOptions) -> Path:
    return cache_folder(options.cache_dir) / "openvino"
