"""`preprocessor_config.json` → `Geometry`.

transformers keeps half of a checkpoint's preprocessing in the defaults of its processor classes. The table below
repeats them in the file's own vocabulary, and the file overrides them. Settings that can't be followed exactly are
refused: pictures of a wrong size would spoil an index without any error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from iei.checkpoints.files import read_json
from iei.errors import StartupError
from iei.models.spec import Geometry

PREPROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"

Config = Mapping[str, Any]

_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_OPENAI = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_BILINEAR, _BICUBIC = 2, 3

_COMMON: Config = {
    "do_resize": True,
    "default_to_square": True,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "do_pad": False,
}
_CENTRE_CROPPED: Config = {
    "size": {"shortest_edge": 224},
    "default_to_square": False,
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "resample": _BICUBIC,
}
_DEFAULTS: Mapping[str, Config] = {
    "ViTImageProcessor": {"size": 224, "resample": _BILINEAR, **_HALF},
    "DeiTImageProcessor": {"size": 256, "resample": _BICUBIC, "crop_size": 224, "do_center_crop": True, **_HALF},
    "BeitImageProcessor": {"size": 224, "resample": _BICUBIC, "crop_size": 224, **_HALF},
    "ConvNextImageProcessor": {
        "size": {"shortest_edge": 384},
        "default_to_square": False,
        "crop_pct": 224 / 256,
        "resample": _BICUBIC,
        **_HALF,
    },
    "BitImageProcessor": {**_CENTRE_CROPPED, **_OPENAI},
    "CLIPImageProcessor": {**_CENTRE_CROPPED, **_OPENAI},
    "SiglipImageProcessor": {
        "size": {"height": 224, "width": 224},
        "default_to_square": False,
        "resample": _BICUBIC,
        **_HALF,
    },
    "DINOv3ViTImageProcessor": {"size": 224, "resample": _BILINEAR, **_IMAGENET},
    "PvtImageProcessor": {"size": 224, "resample": _BICUBIC, **_IMAGENET},
}
"""Processor class → its defaults (transformers 5.23, `image_processing_pil_*.py`)."""

_BY_MODEL_TYPE: Mapping[str, str] = {
    **dict.fromkeys(("vit", "swin", "swinv2", "ijepa"), "ViTImageProcessor"),
    "deit": "DeiTImageProcessor",
    **dict.fromkeys(("beit", "data2vec-vision"), "BeitImageProcessor"),
    **dict.fromkeys(("convnext", "convnextv2", "resnet"), "ConvNextImageProcessor"),
    **dict.fromkeys(("dinov2", "hiera"), "BitImageProcessor"),
    **dict.fromkeys(("clip", "clip_vision_model"), "CLIPImageProcessor"),
    **dict.fromkeys(("siglip", "siglip_vision_model"), "SiglipImageProcessor"),
    "dinov3_vit": "DINOv3ViTImageProcessor",
    "pvt": "PvtImageProcessor",
}
"""`model_type` → the processor of old files that do not name theirs."""

_FLOAT_PROCESSORS = {"DINOv3ViTImageProcessor"}
"""Processors that rescale before they resize, so that they resample floats. They exist for torchvision only."""


def read_preprocessor(folder: Path) -> dict[str, Any]:
    """Returns the image processor's settings in a checkpoint's folder.

    Newer checkpoints nest them in `processor_config.json`, which then takes precedence.

    Raises:
        StartupError: there are none.
    """
    nested = (read_json(folder / PROCESSOR_FILE) or {}).get("image_processor")
    preprocessor = nested if isinstance(nested, dict) else read_json(folder / PREPROCESSOR_FILE)
    if preprocessor is None:
        raise StartupError(
            f"{folder} has no {PREPROCESSOR_FILE}, which says at which size its model takes pictures: "
            "copy the file from the checkpoint that the model was trained from."
        )
    return preprocessor


def read_geometry(preprocessor_config: Config, model_type: str) -> Geometry:
    """Returns the geometry that a preprocessor file describes, with its processor's defaults for missing fields.

    Args:
        preprocessor_config: the file's content.
        model_type: of `config.json`; decides for old files that name no processor.

    Raises:
        StartupError: a field that can't be followed exactly, by name.
    """
    fields = preprocessor_config.get("image_processor", preprocessor_config)
    name = _processor_name(fields, model_type)
    config = {**_COMMON, **_DEFAULTS[name], **fields}
    if config["do_pad"]:
        raise _refusal("do_pad", config["do_pad"], "pictures can't be padded")

    planned = _convnext if name == "ConvNextImageProcessor" else _as_given
    plan = planned(config) if config["do_resize"] else _Plan("none", 0, 0)
    crop = _crop(config, plan)
    if plan.resize != "exact" and crop is None:
        field = "do_center_crop" if config["do_resize"] else "do_resize"
        raise _refusal(field, config[field], "without a centre crop, every picture would have another size")
    float_resize = name in _FLOAT_PROCESSORS and config["do_resize"]
    if float_resize:
        _check_float(config)
    height, width = (plan.height, plan.width) if config["do_resize"] else crop or (0, 0)
    return Geometry(
        resize=plan.resize,
        height=height,
        width=width,
        resample=_resample(config) if config["do_resize"] else 0,
        crop=crop,
        scale=_positive(config, "rescale_factor") if config["do_rescale"] else 1.0,
        mean=_three(config, "image_mean") if config["do_normalize"] else (0.0, 0.0, 0.0),
        std=_three(config, "image_std") if config["do_normalize"] else (1.0, 1.0, 1.0),
        float_resize=float_resize,
    )


def _processor_name(fields: Config, model_type: str) -> str:
    named = fields.get("image_processor_type") or fields.get("feature_extractor_type")
    if named is None:
        if model_type not in _BY_MODEL_TYPE:
            raise StartupError(
                f"{PREPROCESSOR_FILE} has no image_processor_type, and for model type {model_type!r} none is known: "
                f"add one of {', '.join(_DEFAULTS)}."
            )
        return _BY_MODEL_TYPE[model_type]
    name = str(named).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    if name not in _DEFAULTS:
        raise StartupError(
            f"{PREPROCESSOR_FILE}: image_processor_type {named!r} is not supported; these are: {', '.join(_DEFAULTS)}."
        )
    return name


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a processor does to a picture's size, before the crop that the file asks for."""

    resize: Literal["exact", "short_side", "none"]
    height: int
    width: int
    crop: tuple[int, int] | None = None


def _as_given(config: Config) -> _Plan:
    size = _size(config)
    if "shortest_edge" in size:
        return _Plan("short_side", size["shortest_edge"], size["shortest_edge"])
    return _Plan("exact", size["height"], size["width"])


def _convnext(config: Config) -> _Plan:
    """Below 384, the short side goes to size / crop_pct and the middle is kept; from 384 on, the picture is warped."""
    size = _size(config)
    if "shortest_edge" not in size:
        raise _refusal("size", config["size"], "ConvNextImageProcessor wants a shortest_edge")
    side = size["shortest_edge"]
    if side >= 384:
        return _Plan("exact", side, side)
    short = int(side / _positive(config, "crop_pct"))
    return _Plan("short_side", short, short, crop=(side, side))


def _crop(config: Config, plan: _Plan) -> tuple[int, int] | None:
    if not config["do_center_crop"]:
        return plan.crop
    value = config.get("crop_size")
    crop = _size_of("crop_size", value, square=True)
    if set(crop) != {"height", "width"}:
        raise _refusal("crop_size", value, "a centre crop needs a height and a width")
    asked = (crop["height"], crop["width"])
    if plan.crop not in (None, asked):
        raise _refusal("do_center_crop", True, f"the resize already crops to {plan.crop}, and a second crop differs")
    return asked


def _check_float(config: Config) -> None:
    """Refuses what torchvision's float path computes otherwise than Pillow's."""
    if config["do_center_crop"]:
        raise _refusal("do_center_crop", True, "DINOv3ViTImageProcessor is followed without a crop only")
    if not config["do_rescale"]:
        raise _refusal(
            "do_rescale", False, "DINOv3ViTImageProcessor is followed only when it rescales before it resizes"
        )
    if config["resample"] not in (_BILINEAR, _BICUBIC):
        raise _refusal("resample", config["resample"], "DINOv3ViTImageProcessor is followed for 2 and 3 only")


def _size(config: Config) -> dict[str, int]:
    return _size_of("size", config["size"], square=config["default_to_square"])


def _size_of(field: str, value: object, square: bool) -> dict[str, int]:
    """Returns {height, width} or {shortest_edge} for any form of a size in these files."""
    if isinstance(value, int):
        value = {"height": value, "width": value} if square else {"shortest_edge": value}
    elif isinstance(value, list) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    if not isinstance(value, Mapping) or set(value) not in ({"height", "width"}, {"shortest_edge"}):
        raise _refusal(field, value, "known are a number, {height, width} and {shortest_edge}")
    for side in value.values():
        if not isinstance(side, int) or isinstance(side, bool) or side < 1:
            raise _refusal(field, value, "sides are whole numbers of pixels")
    return dict(value)


def _resample(config: Config) -> int:
    value = config["resample"]
    if not isinstance(value, int) or isinstance(value, bool) or value not in range(6):
        raise _refusal("resample", value, "Pillow's filters have numbers from 0 to 5")
    return value


def _three(config: Config, field: str) -> tuple[float, float, float]:
    value = config[field]
    values = value if isinstance(value, list | tuple) else [value] * 3
    if len(values) != 3:
        raise _refusal(field, value, "three numbers are wanted, for red, green and blue")
    red, green, blue = (_number(field, number) for number in values)
    if field == "image_std" and 0 in (red, green, blue):
        raise _refusal(field, value, "pixels are divided by it")
    return red, green, blue


def _number(field: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _refusal(field, value, "a number is wanted")
    return float(value)


def _positive(config: Config, field: str) -> float:
    number = _number(field, config[field])
    if number <= 0:
        raise _refusal(field, number, "a number above 0 is wanted")
    return number


def _refusal(field: str, value: object, why: str) -> StartupError:
    return StartupError(
        f"{PREPROCESSOR_FILE}: {field} = {json.dumps(value, default=str)} can't be followed exactly: {why}."
    )
