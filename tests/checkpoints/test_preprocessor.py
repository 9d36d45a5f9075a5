"""`read_geometry` against transformers: the same file, the same pictures, the same pixel values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import transformers
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from iei.checkpoints.preprocessor import _BY_MODEL_TYPE, _DEFAULTS, read_geometry, read_preprocessor
from iei.checkpoints.vision_architectures import VISION_ARCHITECTURES
from iei.errors import StartupError
from iei.inputs.geometry import to_pixels
from iei.models.spec import Geometry
from tests.pictures import photo

SIZES = [(500, 375), (224, 224), (1, 1), (231, 417), (40, 30)]
ELONGATED = [(3, 1000), (1000, 3), (1, 5000)]

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

FILES: dict[str, dict[str, Any]] = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}, "resample": 2},
    "vit of 2021": {"feature_extractor_type": "ViTFeatureExtractor", "do_normalize": True, "size": 224, "resample": 2},
    "vit not square": {"image_processor_type": "ViTImageProcessorFast", "size": {"height": 96, "width": 160}},
    "vit size as a list": {"image_processor_type": "ViTImageProcessor", "size": [96, 160]},
    "vit nulls switch off": {
        "image_processor_type": "ViTImageProcessor",
        "do_center_crop": None,
        "do_rescale": None,
        "do_normalize": None,
        "image_mean": None,
    },
    "vit lanczos": {"image_processor_type": "ViTImageProcessor", "resample": 1},
    "vit nearest": {"image_processor_type": "ViTImageProcessor", "resample": 0},
    "vit short side, cropped": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"shortest_edge": 64},
        "do_center_crop": True,
        "crop_size": 48,
    },
    "vit unscaled": {"image_processor_type": "ViTImageProcessor", "do_rescale": False, "do_normalize": False},
    "vit not normalised": {"image_processor_type": "ViTImageProcessor", "do_normalize": False},
    "vit to [-1, 1]": {"image_processor_type": "ViTImageProcessor", "rescale_factor": 1 / 127.5, "image_mean": 1.0},
    "vit cropped only": {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "do_center_crop": True,
        "crop_size": {"height": 65, "width": 97},
    },
    "swin": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 224, "width": 224},
        "resample": 3,
        **IMAGENET,
    },
    "deit": {
        "feature_extractor_type": "DeiTFeatureExtractor",
        "size": 256,
        "crop_size": 224,
        "resample": 3,
        **IMAGENET,
    },
    "deit by default": {"image_processor_type": "DeiTImageProcessor"},
    "beit": {"image_processor_type": "BeitImageProcessor", "crop_size": {"height": 224, "width": 224}},
    "beit of 2021": {"feature_extractor_type": "BeitFeatureExtractor", "size": 224, "crop_size": 224, "resample": 2},
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, **IMAGENET},
    "convnext of 2022": {"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875, "size": 224},
    "convnext crop_pct": {"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.95, "size": 288},
    "convnext 384": {"image_processor_type": "ConvNextImageProcessor"},
    "dinov2": {
        "image_processor_type": "BitImageProcessor",
        "crop_size": {"height": 224, "width": 224},
        "size": {"shortest_edge": 256},
        "resample": 3,
        **IMAGENET,
    },
    "bit by default": {"image_processor_type": "BitImageProcessor"},
    "clip": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "do_center_crop": True},
    "clip odd": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 101}, "crop_size": 98},
    "clip crop beyond the resize": {"image_processor_type": "CLIPImageProcessor", "size": 61, "crop_size": 84},
    "clip by default": {"image_processor_type": "CLIPImageProcessor"},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 384}},
    "pvt": {"image_processor_type": "PvtImageProcessor"},
    "nested": {"image_processor": {"image_processor_type": "ViTImageProcessor", "size": 64}, "processor_class": "X"},
}


def pixel_values(image: Image.Image, geometry: Geometry) -> npt.NDArray[np.float64]:
    """float64[3, H, W]: what the engine makes of a worker's pixels."""
    pixels = to_pixels(image, geometry).astype(np.float64)
    return ((pixels * geometry.scale - geometry.mean) / geometry.std).transpose(2, 0, 1)


def theirs(file: dict[str, Any], backend: str = "Pil") -> Any:
    fields = dict(file.get("image_processor", file))
    name = fields.pop("image_processor_type", None) or fields.pop("feature_extractor_type")
    name = name.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    return getattr(transformers, name + backend).from_dict(fields)


@pytest.mark.server
@pytest.mark.parametrize("name", FILES)
def test_pixels_equal_those_of_transformers(name: str) -> None:
    geometry, processor = read_geometry(FILES[name], "none"), theirs(FILES[name])
    for width, height in SIZES:
        image = photo(width, height)
        ours = pixel_values(image, geometry)
        expected = processor(image, return_tensors="np")["pixel_values"][0]
        assert ours.shape[1:] == expected.shape[1:] == geometry.size
        # Theirs is float32: one level of a pixel is a thousand times more than this.
        np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-6 * np.abs(expected).max())


@pytest.mark.server
@pytest.mark.parametrize("size", ELONGATED)
@pytest.mark.parametrize("name", ["vit", "clip odd", "convnext 384"])
def test_elongated_pictures_too(name: str, size: tuple[int, int]) -> None:
    image = photo(*size)
    expected = theirs(FILES[name])(image, return_tensors="np")["pixel_values"][0]
    ours = pixel_values(image, read_geometry(FILES[name], "none"))
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize(("height", "width"), [(224, 224), (96, 160)])
def test_dinov3_equals_its_torchvision_processor(resample: int, height: int, width: int) -> None:
    file = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "size": {"height": height, "width": width},
        "resample": resample,
    }
    geometry, processor = read_geometry(file, "dinov3_vit"), theirs(file, backend="")
    assert geometry.float_resize
    for size in SIZES:
        image = photo(*size)
        expected = processor(image, return_tensors="np")["pixel_values"][0]
        # A level of a uint8 pixel is 0.017 here. torchvision sums in float32, Pillow in float64.
        np.testing.assert_allclose(pixel_values(image, geometry), expected, rtol=0, atol=3e-5)


def test_a_file_without_a_processor_is_read_by_model_type() -> None:
    file = {"do_normalize": True, "size": 384}
    assert read_geometry(file, "vit").size == (384, 384)
    assert read_geometry(file, "vit").resample == 2
    assert read_geometry(file, "beit").resample == 3
    assert read_geometry({"size": 224}, "convnext").resize == "short_side"


@pytest.mark.parametrize("model_type", sorted(set(_BY_MODEL_TYPE) & set(IMAGE_PROCESSOR_MAPPING_NAMES)))
def test_model_types_have_the_processor_that_transformers_gives_them(model_type: str) -> None:
    assert IMAGE_PROCESSOR_MAPPING_NAMES[model_type]["torchvision"] == _BY_MODEL_TYPE[model_type]


def test_no_row_is_for_models_that_are_not_served() -> None:
    assert set(_BY_MODEL_TYPE) <= set(VISION_ARCHITECTURES)


def test_every_processor_in_the_table_is_tested() -> None:
    tested = {type(theirs(file)).__name__.removesuffix("Pil") for file in FILES.values()}
    assert tested | {"DINOv3ViTImageProcessor"} == set(_DEFAULTS)


VIT, BIT, CONVNEXT = (
    {"image_processor_type": f"{name}ImageProcessor", "size": 224} for name in ("ViT", "Bit", "ConvNext")
)
DINOV3 = {"image_processor_type": "DINOv3ViTImageProcessorFast"}
REFUSED = [
    ("image_processor_type", {"image_processor_type": "Siglip2ImageProcessor"}),
    ("image_processor_type", {"image_processor_type": "MobileViTImageProcessor"}),
    ("image_processor_type", {}),
    ("do_pad", {**VIT, "do_pad": True}),
    ("do_resize", {**VIT, "do_resize": False}),
    ("do_center_crop", {**BIT, "do_center_crop": False}),
    ("do_center_crop", {**CONVNEXT, "do_center_crop": True, "crop_size": 200}),
    ("size", {**BIT, "size": {"shortest_edge": 256, "longest_edge": 512}}),
    ("size", {**BIT, "size": {"max_height": 256, "max_width": 512}}),
    ("size", {**BIT, "size": 0}),
    ("size", {**VIT, "size": None}),
    ("size", {**VIT, "size": {"height": 224.0, "width": 224}}),
    ("size", {**VIT, "size": True}),
    ("size", {**CONVNEXT, "size": {"height": 224, "width": 224}}),
    ("crop_size", {**BIT, "crop_size": {"shortest_edge": 224}}),
    ("crop_size", {**VIT, "do_center_crop": True}),
    ("crop_pct", {**CONVNEXT, "crop_pct": 0}),
    ("resample", {**VIT, "resample": 9}),
    ("resample", {**VIT, "resample": "bicubic"}),
    ("image_mean", {**VIT, "image_mean": [0.5]}),
    ("image_std", {**VIT, "image_std": [0.5, 0.5, "a"]}),
    ("image_std", {**VIT, "image_std": [0.5, 0.5, 0]}),
    ("rescale_factor", {**VIT, "rescale_factor": "1/255"}),
    ("do_center_crop", {**DINOV3, "do_center_crop": True, "crop_size": 224}),
    ("do_rescale", {**DINOV3, "do_rescale": False}),
    ("resample", {**DINOV3, "resample": 1}),
]


@pytest.mark.parametrize(("field", "file"), REFUSED)
def test_what_cannot_be_followed_stops_the_start_and_names_the_field(field: str, file: dict[str, Any]) -> None:
    with pytest.raises(StartupError, match=field):
        read_geometry(file, "unheard-of")


def test_a_saved_processor_is_read_back(tmp_path: Path) -> None:
    transformers.BitImageProcessorPil(size={"shortest_edge": 60}, crop_size=48).save_pretrained(tmp_path)
    assert read_geometry(read_preprocessor(tmp_path), "dinov2").size == (48, 48)


def test_settings_nested_in_the_processor_file_count_first(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT))
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {**VIT, "size": 64}}))
    assert read_geometry(read_preprocessor(tmp_path), "vit").size == (64, 64)
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert read_geometry(read_preprocessor(tmp_path), "vit").size == (224, 224)


def test_a_checkpoint_without_the_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"preprocessor_config\.json"):
        read_preprocessor(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '"vit"'])
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(StartupError, match=r"preprocessor_config\.json is not"):
        read_preprocessor(tmp_path)
