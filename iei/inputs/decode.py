"""Decodes image files to RGB, within limits.

The files are untrusted. Only an allow-list of formats is tried, the size is checked in the header before any pixel is
decoded, and every exception of a parser becomes `InvalidInput`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from iei.encoded import MAX_PIXELS, Encoded, is_decodable
from iei.errors import EmptyInput, IEIError, InvalidInput
from iei.inputs.budget import PixelBudget
from iei.inputs.geometry import REDUCTION_MARGIN
from iei.inputs.jpeg import plain
from iei.inputs.libtiff import silence_libtiff
from iei.inputs.pieces import PictureFile, check_pieces
from iei.models.spec import Geometry
from iei.requests import PictureSize

# Importing a plugin registers its format. The other forty are left out: each is attack surface.
_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    AvifImagePlugin.AvifImageFile,
)
FORMATS: tuple[str, ...] = tuple(plugin.format for plugin in _PLUGINS)
"""Formats that are decoded. `JPEG` includes MPO (several JPEGs in one file), of which the first image is used."""
_MPO = MpoImagePlugin.MpoImageFile  # imported here so that no request has to import it

MAX_SCANS = 200
"""Most scans in a JPEG. Encoders write about ten; even an empty scan costs a pass over all pixels."""
MAX_SCANS_OF_THE_LARGEST = 30
"""As many scans, in a JPEG of the most pixels that are allowed, cost as much as a PNG of them: 2 s for 64 MP."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Limits on decoding."""

    max_pixels: int
    """Largest image, in pixels."""
    max_side: int
    """Longest side, in pixels. A row costs as much as a hundred pixels: 64 million rows of one pixel take 10 s."""
    budget: PixelBudget
    """Shared by all threads of a process."""
    fast: bool = False
    """Decode JPEGs much larger than the target at a reduced scale."""
    max_encoded_bytes: int = 0
    """Largest JPEG that is left to an engine."""


def configure_pillow(max_pixels: int) -> None:
    """Sets Pillow's process-wide options. Call it once, before anything is decoded.

    Args:
        max_pixels: the largest image. Pillow's own limit (canvases of WebP, tiles of TIFF) must not be stricter.
    """
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    # Pillow warns about unusual metadata, which the operator can do nothing about.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    silence_libtiff()


@contextmanager
def decoded(data: bytes, limits: DecodeLimits, *, target: tuple[int, int] | None = None) -> Iterator[Image.Image]:
    """The image in `data` as mode RGB: upright, first frame, transparency composited over white.

    Its pixels count against the budget until the block ends, so resize it inside. Blocks until the budget has enough
    free pixels, so call it in a thread.

    Args:
        data: the encoded file.
        limits: on the image and on what is decoded at the same time.
        target: (height, width) that it will be resized to: with `limits.fast`, a JPEG may be decoded at 1/2, 1/4 or
            1/8 of its size, but never below `REDUCTION_MARGIN` times the target.

    Raises:
        EmptyInput: `data` is empty.
        InvalidInput: `data` is not an image in a known format, is damaged, or is over a limit.
    """
    image = _checked(data, limits)
    with limits.budget.hold(image.width * image.height * _weight(image)):
        with _blaming_the_file(limits):
            if limits.fast and target:
                least = REDUCTION_MARGIN * max(target)  # of both sides: it may be turned
                image.draft(None, (least, least))
            # By default Pillow passes 64 KiB at a time to its decoders and takes the GIL between them.
            image.decodermaxblock = max(len(data), image.decodermaxblock)
            image.load()
            rgb = _to_rgb(_turned(image, _orientation(image)))
        del image  # the source uses as much memory as the result
        yield rgb


def undecoded(data: bytes, limits: DecodeLimits, geometry: Geometry) -> tuple[Encoded, PictureSize] | None:
    """The JPEG in `data` for an engine that decodes it, and the size that it has upright; None if `decoded` is to.

    Raises:
        EmptyInput, InvalidInput: as `decoded` does for what it sees before it decodes.
    """
    image = _checked(data, limits)
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.width * image.height > MAX_PIXELS:
        return None
    if len(data) > limits.max_encoded_bytes:
        return None
    orientation = _orientation(image)
    width, height = reversed(image.size) if orientation in _SIDEWAYS else image.size
    found = plain(data) if is_decodable(geometry, width, height) else None
    if found is None or (found.width, found.height) != image.size:
        return None
    file = np.frombuffer(found.file, np.uint8)
    return Encoded(found.height, found.width, orientation, file), PictureSize(width, height)


@contextmanager
def redecoded(jpeg: Encoded, limits: DecodeLimits, *, target: tuple[int, int] | None = None) -> Iterator[Image.Image]:
    """What `undecoded` left to an engine, after all. As `decoded`, which also says what the errors are."""
    with decoded(jpeg.file.tobytes(), limits, target=target) as image:
        yield _turned(image, jpeg.orientation)


def picture_size(data: bytes) -> PictureSize | None:
    """The size that the picture in `data` has upright, from its head alone; None if it is no picture.

    A PNG that says which side is up only after its pixels counts as upright.
    """
    try:
        image = _opened(data)
    except Exception:  # as in `_blaming_the_file`; whoever decodes it says what is wrong
        return None
    knows = not isinstance(image, PngImagePlugin.PngImageFile) or "exif" in image.info  # else it would be decoded
    is_turned = knows and _orientation(image) in _SIDEWAYS
    return PictureSize(*(reversed(image.size) if is_turned else image.size))


def _checked(data: bytes, limits: DecodeLimits) -> ImageFile.ImageFile:
    """The image in `data`, of which only the head has been read, and which is within the limits."""
    if not data:
        raise EmptyInput("is empty")
    with _blaming_the_file(limits):
        image = _opened(data)
    if image.width * image.height > limits.max_pixels:
        raise InvalidInput(f"{image.width}×{image.height} is over the limit of {_limit(limits)}")
    if max(image.size) > limits.max_side:
        raise InvalidInput(
            f"{image.width}×{image.height} has a side over the limit of {limits.max_side} (IEI_MAX_IMAGE_SIDE)"
        )
    _check_scans(image, data, limits)
    return image


def _opened(data: bytes) -> ImageFile.ImageFile:
    """Like `Image.open` for the allowed formats alone, without its warnings about size: the caller checks the size."""
    for name in FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(data[:16]) is True:
            check_pieces(name, data)
            return factory(PictureFile(data), "")
    raise InvalidInput(f"is not an image in a known format ({', '.join(FORMATS)})")


def _check_scans(image: ImageFile.ImageFile, data: bytes, limits: DecodeLimits) -> None:
    """Raises InvalidInput if a JPEG has so many scans that it costs more than other pictures of the largest size."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return
    scans = data.count(b"\xff\xda")
    most = min(MAX_SCANS, MAX_SCANS_OF_THE_LARGEST * limits.max_pixels // (image.width * image.height))
    if scans > most:
        raise InvalidInput(f"is a JPEG of {scans} scans, over the limit of {most} for {image.width}×{image.height}")


def _weight(image: ImageFile.ImageFile) -> int:
    """2 of pictures that need more than 9 bytes a pixel while they are decoded, up to 18, and 1 of all others."""
    return 2 if image.format in _HEAVY or image.info.get("progressive") else 1


_HEAVY = ("WEBP", "TIFF")
"""libwebp keeps three copies of 4 bytes, libtiff a strip of up to 16 bytes; a progressive JPEG all its coefficients."""


@contextmanager
def _blaming_the_file(limits: DecodeLimits) -> Iterator[None]:
    try:
        yield
    except IEIError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidInput(f"is over the limit of {_limit(limits)}") from error
    # 160,000 damaged files gave OSError, SyntaxError, RuntimeError and ValueError; Pillow's own `open` also expects
    # IndexError, TypeError and struct.error. All mean a damaged file, and a list of types would not be complete.
    except Exception as error:
        raise InvalidInput(f"can't be decoded, the file is damaged or cut short: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error).splitlines()
    return text[0][:120] if text else type(error).__name__


def _limit(limits: DecodeLimits) -> str:
    return f"{limits.max_pixels / 1e6:g} MP (IEI_MAX_IMAGE_PIXELS)"


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → the transposition that makes the image upright (Exif 2.32, table 6)."""
_SIDEWAYS = (5, 6, 7, 8)
"""Those that exchange width and height."""


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 to 8."""
    try:
        found = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Broken EXIF with intact pixels is common; viewers then ignore it.
        return 1
    return found if found in _TURNS else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _TO_8_BITS:
        image = _TO_8_BITS[image.mode](image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    for top, strip in _strips(image):
        over = strip.convert("RGBA")
        white.paste(over, (0, top), over)
    return white


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yields (top row, strip) pairs, so that intermediate images never have the size of the whole image."""
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


_STRIP_PIXELS = 2**20


def _from_uint16(image: Image.Image) -> Image.Image:
    grey = Image.new("L", image.size)
    for top, strip in _strips(image):
        levels = (np.asarray(strip).astype(np.uint32) + 128) // 257
        grey.paste(Image.fromarray(levels.astype(np.uint8)), (0, top))
    return grey


def _from_any_range(image: Image.Image) -> Image.Image:
    """Scales greys without a fixed range (32-bit integers, floats) from the smallest usual range that holds them."""

    def levels(strip: Image.Image) -> npt.NDArray[np.float32]:
        return np.nan_to_num(np.array(strip, dtype=np.float32), copy=False, posinf=0.0, neginf=0.0)

    extremes = [(float(part.min()), float(part.max())) for part in (levels(strip) for _, strip in _strips(image))]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    black, white = 0.0, next((white for white in ranges if low >= 0 and high <= white), None)
    if white is None:
        black, white = low, high - low or 1.0
    grey = Image.new("L", image.size)
    for top, strip in _strips(image):
        part = np.rint((levels(strip) - np.float32(black)) * np.float32(255 / white))
        grey.paste(Image.fromarray(part.astype(np.uint8)), (0, top))
    return grey


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # rarely needed, and the file's own profile stays unread

    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    rgb = ImageCms.applyTransform(image, transform)
    assert rgb is not None
    return rgb


_TO_8_BITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "I;16": _from_uint16,
    "I;16L": _from_uint16,
    "I;16B": _from_uint16,
    "I;16N": _from_uint16,
    "I": _from_any_range,
    "F": _from_any_range,
    "LAB": _from_lab,
}
"""Modes that Pillow would clip (16-bit greys above 255 turn white) or can't convert."""
