"""Hub id or folder → a model that computes, strictly checked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iei.checkpoints.demo import demo_folder
from iei.checkpoints.families import supported
from iei.checkpoints.hub import fetch_checkpoint, read_config, revision_of
from iei.checkpoints.preprocessor import read_geometry, read_preprocessor
from iei.checkpoints.text_architectures import TEXT_ARCHITECTURES, TWO_TOWERS
from iei.checkpoints.tokenizer import TOKENIZER_FILE
from iei.checkpoints.vision_architectures import VISION_ARCHITECTURES
from iei.errors import StartupError
from iei.models.catalog import DEMO
from iei.models.spec import POOLED, ImageTower, LoadRequest, ModelSpec, TextTower, why_not
from iei.runtimes.torch.device import Placement, place
from iei.runtimes.torch.onednn import pack_linears
from iei.runtimes.torch.text import TextModel, load_text
from iei.runtimes.torch.two_towers import load_two_towers
from iei.runtimes.torch.vision import VisionModel
from iei.runtimes.torch.weights import load_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A checkpoint on its device, and what it is."""

    spec: ModelSpec
    device: torch.device
    image: VisionModel | None = None
    text: TextModel | None = None


def load_model(request: LoadRequest) -> LoadedModel:
    """Downloads what is missing, loads it, and computes one input. Raises StartupError, one helpful sentence."""
    placement = place(request)
    folder = find_folder(request)
    model_type = supported(read_config(folder)["model_type"])
    module, image, text = _load_towers(folder, model_type, placement, allow_pickle=request.allow_pickle)
    image_tower = _measure(image, placement) if image else None
    text_tower = text.tower() if text else None
    pooling = _default_pooling(request, [tower for tower in (image_tower, text_tower) if tower])
    parameters = sum(weight.numel() for weight in module.parameters())
    on_cpu = placement.device.type == "cpu" and placement.dtype == torch.float32
    packed = on_cpu and pack_linears(module, lambda: _probe(image, text))
    spec = ModelSpec(
        name=request.name,
        id=request.id,
        revision=revision_of(folder) or request.revision,
        model_type=model_type,
        device=str(placement.device),
        dtype=str(placement.dtype).removeprefix("torch."),
        runtime=f"torch {torch.__version__.partition('+')[0]} "
        f"({module.config._attn_implementation}{', oneDNN' if packed else ''})",
        parameters=parameters,
        image=image_tower and replace(image_tower, pooling=pooling),
        text=text_tower and replace(text_tower, pooling=pooling),
    )
    return LoadedModel(spec, placement.device, image, text)


def find_folder(request: LoadRequest) -> Path:
    """The folder of the request's checkpoint, made or downloaded where it is not here yet."""
    if request.id == DEMO:
        return demo_folder(request.cache_dir)
    return fetch_checkpoint(
        request.id, request.revision, allow_pickle=request.allow_pickle, prefer_cache=request.prefer_cache
    )


class _Towers(NamedTuple):
    module: Any
    """The transformers model."""
    image: VisionModel | None = None
    text: TextModel | None = None


def _load_towers(folder: Path, model_type: str, placement: Placement, *, allow_pickle: bool) -> _Towers:
    if model_type in TEXT_ARCHITECTURES:
        text = load_text(folder, TEXT_ARCHITECTURES[model_type], placement, allow_pickle=allow_pickle)
        return _Towers(text.model, text=text)
    geometry = read_geometry(read_preprocessor(folder), model_type)
    # Some carry a CLIP for its pictures alone, and leave its tokenizer out.
    if model_type in TWO_TOWERS and (folder / TOKENIZER_FILE).is_file():
        return _Towers(*load_two_towers(folder, model_type, geometry, placement, allow_pickle=allow_pickle))
    architecture = VISION_ARCHITECTURES[model_type]
    weights = load_weights(folder, architecture, placement, allow_pickle=allow_pickle)
    return _Towers(weights.module, VisionModel(weights, architecture, geometry, placement))


def _measure(image: VisionModel, placement: Placement) -> ImageTower:
    """Sizes of all outputs, from one forward over a black picture: it warms the model up as well."""
    geometry = image.geometry
    height, width = geometry.size
    pixels = torch.zeros(1, height, width, 3, device=placement.device)
    try:
        with torch.inference_mode():
            results = image(pixels, image.outputs)
    except (ValueError, RuntimeError) as error:
        raise StartupError(
            f"The model can't compute a picture of {height}×{width} pixels, the size in its preprocessor_config.json: "
            f"{error}"
        ) from error
    return ImageTower(
        geometry=geometry,
        outputs={name: value.shape[-1] for name, value in results.items()},
        tokens=results["tokens"].shape[1],
        patches=results["patches"].shape[1],
        stride=image.architecture.stride(image.model.config),
        any_size=image.architecture.sizes != "fixed",
    )


def _probe(image: VisionModel | None, text: TextModel | None) -> list[Tensor]:
    """All that the model gives for one noisy picture and one short text."""
    results: list[Tensor] = []
    if image:
        noise = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (1, *image.geometry.size, 3), generator=noise).to(torch.float32)
        results += image(pixels, image.outputs).values()
    if text:
        results += text(*text.batch([np.arange(8, dtype=np.int32)]), text.outputs).values()
    return results


def _default_pooling(request: LoadRequest, towers: Sequence[ImageTower | TextTower]) -> str:
    """The output of requests that name none: one that all towers have, as vectors of texts and pictures are compared.

    Raises:
        StartupError: they have not what is asked for, and there is no choice.
    """
    own = towers[-1].pooling  # of two towers the text side's: the space that they share
    offered = [name for name in POOLED if all(name in tower.outputs for tower in towers)]
    if request.pooling in offered:
        return request.pooling
    if request.pooling != "auto":
        fault = f"{request.id} can't give the pooling {request.pooling} ({why_not(request.pooling)})"
        if not request.pooling_optional:
            raise StartupError(f"{fault}: set IEI_POOLING to one of {', '.join(offered)}.")
        log.warning("%s: its default is %s", fault, own)
    return own
