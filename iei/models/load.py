"""Hub id or folder → a model that computes, strictly checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from iei.errors import StartupError
from iei.models.architectures import architecture_of
from iei.models.demo import demo_folder
from iei.models.device import pick_device, pick_dtype
from iei.models.hub import fetch_checkpoint
from iei.models.preprocessor import read_geometry
from iei.models.spec import ImageTower, LoadRequest, ModelSpec
from iei.models.vision import VisionModel
from iei.models.weights import load_weights


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A checkpoint on its device."""

    spec: ModelSpec
    device: torch.device
    image: VisionModel


def load_model(request: LoadRequest) -> LoadedModel:
    """Raises StartupError, one sentence that says what to do."""
    device = pick_device(request.device)
    dtype = pick_dtype(request.dtype, device)
    folder = demo_folder(request.cache_dir) if request.id == "demo" else fetch_checkpoint(request.id, request.revision)
    config = read_json(folder / "config.json")
    architecture = architecture_of(config.get("model_type"))
    geometry = read_geometry(read_json(folder / "preprocessor_config.json"), config["model_type"])
    attention = None if request.attention == "auto" else request.attention
    module, pooler = load_weights(folder, architecture, dtype=dtype, attention=attention)
    image = VisionModel(module, architecture, geometry, pooler=pooler).to(device).eval()
    tower = measure(image, device)
    if request.pooling not in ("auto", *tower.outputs):
        raise StartupError(
            f"{request.id} can't give the pooling {request.pooling}; it offers {', '.join(tower.outputs)}"
        )
    spec = ModelSpec(
        name=request.name,
        id=request.id,
        revision=request.revision,
        model_type=config["model_type"],
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        runtime=f"torch {torch.__version__.partition('+')[0]} ({module.config._attn_implementation})",
        parameters=sum(weight.numel() for weight in module.parameters()),
        image=tower,
    )
    return LoadedModel(spec, device, image)


def measure(image: VisionModel, device: torch.device) -> ImageTower:
    """Sizes of all outputs, from one forward over a black picture."""
    geometry = image.geometry
    height, width = geometry.size
    pixels = torch.zeros(1, height, width, 3, dtype=torch.uint8, device=device)
    with torch.inference_mode():
        results = image(pixels, image.outputs)
    patches = results["patches"].shape[1]
    return ImageTower(
        geometry=geometry,
        outputs={name: value.shape[-1] for name, value in results.items()},
        tokens=results["tokens"].shape[1],
        patches=patches,
        stride=round((height * width / patches) ** 0.5),
        any_size=image.architecture.sizes != "fixed",
    )


def read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise StartupError(f"{file.parent} has no {file.name}: it is not the folder of a model") from None
    except (ValueError, OSError) as error:
        raise StartupError(f"{file} can't be read: {error}") from None
    if not isinstance(content, dict):
        raise StartupError(f"{file} is not a JSON object")
    return content
