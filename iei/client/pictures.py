"""Pictures in the forms in which Python programs have them → what is sent of them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

ImageItem: TypeAlias = "str | os.PathLike[str] | bytes | npt.NDArray[np.uint8] | Image.Image"
"""A path, an address (`http://…`, `https://…`, `data:…`), the bytes of a file, pixels as uint8[H, W, 3] (or [H, W] for
grey, [H, W, 4] with transparency), or a picture of Pillow."""

ADDRESSES = ("http://", "https://", "data:")
"""Beginnings of strings that the server reads itself. All other strings are paths."""
COMPRESSED_FROM_BYTES = 2**24
"""Pixels are sent as they are up to this size, and larger ones as PNG: a server takes files of 32 MiB by default.

Measured on two cores, 1920×1080: TIFF 4 ms to write, 3 to read, 6.2 MB; PNG 315, 128, 2.6; WebP 172, 69, 2.0. So
compression pays on networks slower than 100 Mbit/s only."""
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_TIFF_MODES = _PNG_MODES | {"CMYK", "YCbCr", "LAB", "I", "F", "I;16B"}
_ORIENTATION = 0x0112
"""The EXIF tag, which the server follows in a file, and therefore in what is made of one."""


def listed(images: ImageItem | Iterable[ImageItem]) -> Iterable[ImageItem]:
    """Several pictures as they are, and one as a list of it. An array of [n, H, W, 3] is n pictures."""
    if isinstance(images, np.ndarray):
        return images if images.ndim > 3 else [images]
    if isinstance(images, (str, bytes, os.PathLike)) or not isinstance(images, Iterable):
        return [images]
    return images


def name(item: object) -> str:
    """What errors call a picture besides its index: its path, if it has one."""
    is_path = isinstance(item, os.PathLike) or (isinstance(item, str) and not item.startswith(ADDRESSES))
    return f"{item}" if is_path else ""


def sent(item: ImageItem) -> bytes | str:
    """The bytes of an image file, or an address. Blocks: it may read a file or encode pixels.

    The file has exactly the pixels of the picture, so that its vector is that of the file the picture is from, but for
    JPEGs of many times the model's size, which the server decodes at a lower scale.

    Raises:
        OSError: the file can't be read.
        ValueError: it is nothing of what ImageItem lists.
    """
    if isinstance(item, str) and item.startswith(ADDRESSES):
        return item
    if isinstance(item, (str, os.PathLike)):
        return Path(item).read_bytes()
    if isinstance(item, bytes):
        return item
    from PIL import Image  # most programs send files, and have no need of it

    if isinstance(item, np.ndarray):
        return _encoded(_picture(item))
    if isinstance(item, Image.Image):
        return _encoded(item)
    raise ValueError(
        f"is a {type(item).__name__}: a picture is a path, an address, bytes, a NumPy array of uint8 or a PIL.Image"
    )


def _picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    from PIL import Image

    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not is_image or not pixels.size:
        raise ValueError(
            f"is an array of {pixels.dtype}{list(pixels.shape)}: pixels are uint8[H, W, 3] in RGB, "
            "uint8[H, W] in grey or uint8[H, W, 4] with transparency"
        )
    return Image.fromarray(pixels)


def _encoded(image: Image.Image) -> bytes:
    """A file without loss: uncompressed TIFF, which holds every mode, or PNG if that would be large."""
    from PIL import Image

    orientation = Image.Exif()
    if (turned := image.getexif().get(_ORIENTATION, 1)) != 1:
        orientation[_ORIENTATION] = turned
    if image.mode not in _TIFF_MODES or (image.mode not in ("RGBA", "LA") and image.has_transparency_data):
        # TIFF has no colour that stands for transparency, and the other modes are rare.
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    is_large = image.width * image.height * len(image.getbands()) > COMPRESSED_FROM_BYTES
    file = io.BytesIO()
    if is_large and image.mode in _PNG_MODES:
        image.save(file, "PNG", compress_level=1, exif=orientation, icc_profile=None)
    else:
        image.save(file, "TIFF", compression="raw", exif=orientation, icc_profile=None)
    return file.getvalue()
