"""`to_pixels` and `to_multiple`: sizes, crops, dtypes, and whole files against transformers' processors."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_transforms import center_crop, get_resize_output_image_size

from iei.errors import InvalidInput
from iei.inputs import geometry as module
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits
from iei.inputs.geometry import to_multiple, to_pixels
from iei.models.spec import Geometry
from tests.inputs.decoding import decode_image
from tests.pictures import encode, encoded, photo, photos

LIMITS = DecodeLimits(64_000_000, 65_535, PixelBudget(64_000_000))

EXACT = Geometry(resize="exact", height=224, width=224, resample=2)
CROPPED = Geometry(resize="short_side", height=256, width=256, resample=3, crop=(224, 224))
NONE = Geometry(resize="none", height=224, width=224, resample=2, crop=(224, 224))
FLOAT = Geometry(resize="exact", height=224, width=224, resample=2, float_resize=True)

sides = st.integers(1, 400)


def short_side(side: int, crop: tuple[int, int], resample: int = 3) -> Geometry:
    return Geometry(resize="short_side", height=side, width=side, resample=resample, crop=crop)


# Whole files, as transformers sees them

PROCESSORS: dict[str, tuple[Any, Geometry]] = {
    "vit": (transformers.ViTImageProcessorPil(do_convert_rgb=True), EXACT),
    "dinov2": (transformers.BitImageProcessorPil(size={"shortest_edge": 256}, crop_size=224), CROPPED),
}


def raw_pixels(processor: Any, image: Image.Image) -> npt.NDArray[np.uint8]:
    out = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
    return np.asarray(out["pixel_values"][0]).transpose(1, 2, 0)


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("photo_name", photos())
def test_photos_give_the_pixels_of_transformers(name: str, photo_name: str) -> None:
    processor, geometry = PROCESSORS[name]
    data = encode(photos()[photo_name], "JPEG", quality=92)
    with Image.open(io.BytesIO(data)) as image:
        expected = raw_pixels(processor, image)
    assert np.array_equal(to_pixels(decode_image(data, LIMITS), geometry), expected)


# Its deep greys are clipped, it can't read LAB, and it leaves pictures turned: ours differ there on purpose.
SAME = [name for name in encoded() if not any(word in name for word in ("16-bit", "float", "lab", "turned"))]


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("form", SAME)
def test_every_form_gives_the_pixels_of_transformers(name: str, form: str) -> None:
    processor, geometry = PROCESSORS[name]
    with Image.open(io.BytesIO(encoded()[form])) as image:
        expected = raw_pixels(processor, image)
    assert np.array_equal(to_pixels(decode_image(encoded()[form], LIMITS), geometry), expected)


# Sizes and crops


@given(width=sides, height=sides, short=st.integers(1, 300))
def test_the_short_side_is_rounded_as_transformers_rounds_it(width: int, height: int, short: int) -> None:
    blank = np.empty((height, width, 3), np.uint8)
    theirs = get_resize_output_image_size(blank, short, default_to_square=False, input_data_format="channels_last")
    geometry = short_side(short, (1, 1))
    assert geometry.resized_size(width, height) == (theirs[1], theirs[0])


@settings(max_examples=60, deadline=None)
@given(width=sides, height=sides, crop=st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_crops_lie_and_are_padded_as_in_transformers(width: int, height: int, crop: tuple[int, int]) -> None:
    image = photo(width, height)
    geometry = Geometry(resize="none", height=crop[0], width=crop[1], resample=2, crop=crop)
    expected = center_crop(np.asarray(image), crop, input_data_format="channels_last")
    assert np.array_equal(to_pixels(image, geometry), expected)


@settings(max_examples=60, deadline=None)
@given(width=sides, height=sides, geometry=st.sampled_from([EXACT, CROPPED, NONE, FLOAT]), fast=st.booleans())
def test_pixels_always_have_the_geometrys_size(width: int, height: int, geometry: Geometry, fast: bool) -> None:
    pixels = to_pixels(Image.new("RGB", (width, height), (10, 200, 30)), geometry, fast=fast)
    assert pixels.shape == (*geometry.size, 3)
    assert pixels.dtype == (np.float32 if geometry.float_resize else np.uint8)
    assert pixels.flags.c_contiguous
    assert pixels.max() <= 200.001
    assert pixels.min() >= 0


def test_floats_are_not_rounded_and_stay_near_the_bytes() -> None:
    image = photo(500, 375)
    floats, levels = to_pixels(image, FLOAT), to_pixels(image, EXACT)
    assert np.abs(floats - levels).max() <= 1.0
    assert (floats != np.rint(floats)).mean() > 0.9


@pytest.mark.parametrize("size", [(4000, 3000), (500, 375), (64, 64)])
def test_fast_resizing_is_close_to_the_exact_one(size: tuple[int, int]) -> None:
    image = photo(*size)
    difference = np.abs(to_pixels(image, EXACT, fast=True).astype(int) - to_pixels(image, EXACT))
    assert difference.mean() < 0.5
    assert difference.max() <= 8


# Elongated pictures


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    short=st.integers(8, 160),
    crop=st.tuples(st.integers(1, 160), st.integers(1, 160)),
    resample=st.sampled_from([1, 2, 3, 5]),  # of the others, an edge between two pixels may fall to either
)
def test_the_part_that_a_crop_keeps_can_be_computed_alone(
    size: tuple[int, int], short: int, crop: tuple[int, int], resample: int
) -> None:
    geometry = short_side(short, crop, resample)
    image = photo(*size)
    resized = geometry.resized_size(*size)
    assume(resized[0] * resized[1] < 1_000_000)
    box = geometry.crop_box(*resized)
    part = module._resampled_part(image, resized, box, resample)
    whole = image.resize(resized, resample).crop(box)
    assert part.size == whole.size
    difference = np.abs(np.asarray(part).astype(int) - np.asarray(whole))
    assert difference.max() <= 3  # Pillow keeps the box in float32


def test_a_picture_one_pixel_wide_costs_no_more_than_what_is_kept() -> None:
    column = Image.new("RGB", (1, 1_000_000), (1, 2, 3))  # its short side at 256 would be 65 gigapixels
    assert to_pixels(column, CROPPED).reshape(-1, 3).tolist() == [[1, 2, 3]] * 224 * 224
    row = photo(5000, 1)
    pixels = to_pixels(row, CROPPED)
    middle = np.asarray(row)[0, 2499:2501].astype(int)
    assert np.abs(pixels[112, 111:113].astype(int) - middle.mean(axis=0)).max() < 20


# Multiples


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((256, 256), (256, 256)),
        ((250, 256), (256, 256)),
        ((257, 1), (16, 272)),
        ((1, 1), (16, 16)),
        ((640, 427), (432, 640)),
    ],
)
def test_sides_are_rounded_up_to_multiples(size: tuple[int, int], shape: tuple[int, int]) -> None:
    pixels = to_multiple(photo(*size), EXACT, 16, max_patches=1100)
    assert pixels.shape == (*shape, 3)
    assert pixels.dtype == np.uint8


def test_a_picture_of_whole_patches_is_left_as_it_is() -> None:
    image = photo(256, 128)
    assert np.array_equal(to_multiple(image, EXACT, 16, max_patches=128), np.asarray(image))
    assert np.array_equal(to_multiple(image, FLOAT, 16, max_patches=128), np.asarray(image).astype(np.float32))


def test_too_many_patches_are_refused_with_the_limit() -> None:
    with pytest.raises(InvalidInput, match=r"^257×256 makes 272 patches, over the limit of 256 \(IEI_MAX_PATCHES\)$"):
        to_multiple(photo(257, 256), EXACT, 16, max_patches=256)
