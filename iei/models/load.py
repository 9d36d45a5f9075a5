"""Hub id or folder → a model that computes, strictly checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from iei.errors import StartupError
from iei.models.architectures import Architecture, architecture_of
from iei.models.demo import demo_folder
from iei.models.device import Placement, place
from iei.models.hub import fetch_checkpoint, read_config, revision_of
from iei.models.preprocessor import read_geometry, read_preprocessor
from iei.models.spec import POOLED, ImageTower, LoadRequest, ModelSpec
from iei.models.vision import VisionModel
from iei.models.weights import load_weights


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A checkpoint on its device, and what it is."""

    spec: ModelSpec
    device: torch.device
    image: VisionModel


def load_model(request: LoadRequest) -> LoadedModel:
    """Downloads what is missing, loads it, and computes one picture. Raises StartupError, one helpful sentence."""
    placement = place(request)
    folder = find_folder(request)
    model_type = read_config(folder)["model_type"]
    architecture = architecture_of(model_type)
    geometry = read_geometry(read_preprocessor(folder), model_type)
    weights = load_weights(folder, architecture, placement, allow_pickle=request.allow_pickle)
    image = VisionModel(weights, architecture, geometry, placement)
    tower = _measure(image, placement)
    _check_pooling(request, tower, architecture)
    config = weights.module.config
    spec = ModelSpec(
        name=request.name,
        id=request.id,
        revision=revision_of(folder) or request.revision,
        model_type=model_type,
        device=str(placement.device),
        dtype=str(placement.dtype).removeprefix("torch."),
        runtime=f"torch {torch.__version__.partition('+')[0]} ({config._attn_implementation})",
        parameters=sum(weight.numel() for weight in weights.module.parameters()),
        image=tower,
    )
    return LoadedModel(spec, placement.device, image)


def find_folder(request: LoadRequest) -> Path:
    """The folder of the request's checkpoint, made or downloaded where it is not here yet."""
    if request.id == "demo":
        return demo_folder(request.cache_dir)
    return fetch_checkpoint(request.id, request.revision, allow_pickle=request.allow_pickle)


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


def _check_pooling(request: LoadRequest, tower: ImageTower, architecture: Architecture) -> None:
    offered = [name for name in tower.outputs if name in POOLED]
    if request.pooling in ("auto", *offered):
        return
    why = {
        "cls": "its architecture has no class token",
        "pooler": f"its checkpoint lacks the weights {architecture.pooler.weights}*"
        if architecture.pooler
        else "its architecture has no pooling of its own",
    }.get(request.pooling, "it is not a pooling of images")
    raise StartupError(
        f"{request.id} can't give the pooling {request.pooling}, {why}: set IEI_POOLING to one of {', '.join(offered)}."
    )
