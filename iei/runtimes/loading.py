"""LoadRequest → Model: fetch the files, select a runtime, load, measure, describe. The same for all runtimes."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from iei.checkpoints.checkpoint import TextFiles, find_folder, read_checkpoint
from iei.checkpoints.matryoshka import read_matryoshka
from iei.errors import StartupError
from iei.machine import give_back_freed
from iei.models.catalog import LoadRequest
from iei.models.spec import POOLED, Geometry, ImageTower, Modality, ModelSpec, TextTower, why_not
from iei.runtimes import select
from iei.runtimes.api import Begun, Input, Outputs, Overlapping, Parallel, Runtime

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Implements `iei.runtimes.api.Model`: a runtime with one checkpoint, and the description of both."""

    spec: ModelSpec
    runtime: Runtime

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """As `Model.run`, by the runtime."""
        return self.runtime.run(modality, batch, outputs)


@dataclass(frozen=True, slots=True)
class LoadedOverlapping(LoadedModel):
    """Implements `iei.runtimes.api.Overlapping`, too, with a runtime that does."""

    overlapping: Overlapping
    """The runtime."""

    def begin(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> Begun:
        """As `Overlapping.begin`, by the runtime."""
        return self.overlapping.begin(modality, batch, outputs)


@dataclass(frozen=True, slots=True)
class LoadedParallel(LoadedModel):
    """Implements `iei.runtimes.api.Parallel`, too, with a runtime that does."""

    parallel: Parallel
    """The runtime."""

    def lanes(self, modality: Modality, array: Input) -> int:
        """As `Parallel.lanes`, by the runtime."""
        return self.parallel.lanes(modality, array)

    def run_on_lane(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        """As `Parallel.run_on_lane`, by the runtime."""
        return self.parallel.run_on_lane(modality, batch, outputs)


def fetch(request: LoadRequest) -> None:
    """Brings the files of the requested model onto this machine, without loading them.

    Raises:
        StartupError: one sentence that says what to do.
    """
    find_folder(request)


def load(request: LoadRequest) -> LoadedModel:
    """Fetches the requested model if it is not here, loads it, computes one input of each side and warms it up.

    Raises:
        StartupError: one sentence that says what to do.
    """
    select.check(request)
    checkpoint = read_checkpoint(find_folder(request))
    runtime, reason = select.load(checkpoint, request)
    image = _measure_image(runtime, checkpoint.geometry) if checkpoint.geometry else None
    text = _measure_text(runtime, checkpoint.text) if checkpoint.text else None
    pooling = _default_pooling(request, [tower for tower in (image, text) if tower])
    runtime.warm_up()
    give_back_freed()  # reading and compiling took more than what is left of them
    spec = ModelSpec(
        name=request.entry.name,
        id=request.entry.id,
        revision=checkpoint.revision or request.entry.revision,
        model_type=checkpoint.model_type,
        device=runtime.device,
        dtype=runtime.dtype,
        runtime=runtime.software,
        parameters=runtime.parameters,
        max_batch=runtime.max_batch,
        image=image and replace(image, pooling=pooling),
        text=text and replace(text, pooling=pooling),
        contrast=runtime.contrast,
        matryoshka=request.entry.matryoshka or read_matryoshka(checkpoint.folder, request.entry.id),
        runtime_reason=reason,
        quality=runtime.quality,
    )
    if isinstance(runtime, Overlapping):
        return LoadedOverlapping(spec, runtime, runtime)
    if isinstance(runtime, Parallel):
        return LoadedParallel(spec, runtime, runtime)
    return LoadedModel(spec, runtime)


def _measure_image(runtime: Runtime, geometry: Geometry) -> ImageTower:
    """Describes the image side, with the sizes of all outputs for one black picture."""
    side = runtime.image
    assert side is not None
    height, width = geometry.size
    black = np.zeros((height, width, 3), np.float32 if geometry.float_resize else np.uint8)
    try:
        (results,) = runtime.run("image", [black], side.outputs)
    except (ValueError, RuntimeError) as error:
        raise StartupError(
            f"The model can't compute a picture of {height}×{width} pixels, the size in its preprocessor_config.json: "
            f"{error}"
        ) from error
    return ImageTower(
        geometry=geometry,
        outputs=_lengths(results),
        tokens=len(results["tokens"]),
        patches=len(results["patches"]),
        stride=side.stride,
        any_size=side.any_size,
        decodes=side.decodes,
    )


def _measure_text(runtime: Runtime, files: TextFiles) -> TextTower:
    """Describes the text side, with the sizes of all outputs for a short text."""
    side = runtime.text
    assert side is not None
    (results,) = runtime.run("text", [np.zeros(min(8, side.max_tokens), np.int32)], side.outputs)
    return TextTower(
        tokenizer=str(files.tokenizer.path),
        outputs=_lengths(results),
        max_tokens=side.max_tokens,
        pooling=side.pooling,
        normalize=files.pipeline.normalize,
        prompts=files.pipeline.prompts,
        default_prompt=files.pipeline.default_prompt,
        lowercase=files.pipeline.lowercase,
    )


def _lengths(results: Outputs) -> dict[str, int]:
    """Output name → length of its vectors."""
    return {name: vectors.shape[-1] for name, vectors in results.items()}


def _default_pooling(request: LoadRequest, towers: Sequence[ImageTower | TextTower]) -> str:
    """Returns the output of requests that name none: one that all towers have, since clients compare their vectors.

    Raises:
        StartupError: the towers lack the requested pooling, and it is not optional.
    """
    own = towers[-1].pooling  # of two towers the text side's: the space that both share
    offered = [name for name in POOLED if all(name in tower.outputs for tower in towers)]
    if request.options.pooling in offered:
        return request.options.pooling
    if request.options.pooling != "auto":
        fault = (
            f"{request.entry.id} can't give the pooling {request.options.pooling} ({why_not(request.options.pooling)})"
        )
        if not request.pooling_optional:
            raise StartupError(f"{fault}: set IEI_POOLING to one of {', '.join(offered)}.")
        log.warning("%s: its default is %s", fault, own)
    return own
