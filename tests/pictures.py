"""Real pictures for tests, and the many ways in which people encode them.

Photos come from scikit-image and scikit-learn, which ship them inside their packages: nothing is downloaded.
"""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from PIL import Image
from sklearn.datasets import load_sample_images

_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "color.png")


@cache
def photos() -> dict[str, Image.Image]:
    """RGB photos by name. Shared between tests: copy before you change one."""
    folder = Path(skimage.__file__).with_name("data")
    found = {}
    for name in _PHOTOS:
        with Image.open(folder / name) as image:
            found[name.split(".")[0]] = image.convert("RGB")
    for picture in found.values():
        picture.info.clear()  # or their colour profiles would be written into every file that is made of them
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        found[name] = Image.fromarray(pixels)
    return found


def photo(width: int, height: int, name: str = "chelsea") -> Image.Image:
    """A photo stretched to `width`×`height`."""
    return photos()[name].resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    """The file that Pillow writes."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def jpeg(width: int = 500, height: int = 375, name: str = "chelsea") -> bytes:
    return encode(photo(width, height, name), "JPEG", quality=90)


def png(width: int = 64, height: int = 48, name: str = "chelsea") -> bytes:
    return encode(photo(width, height, name), "PNG")


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def data_uri(data: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64_of(data)}"


@cache
def encoded() -> dict[str, bytes]:
    """One small photo in every form that must decode, by what is special about it."""
    rgb = photo(96, 64)
    grey = rgb.convert("L")
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1)))
    rgba, grey_alpha = rgb.copy(), grey.copy()
    rgba.putalpha(alpha)
    grey_alpha.putalpha(alpha)
    palette = rgb.quantize(64)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6  # Orientation: rotate by 270° to show upright
    frames: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    return {
        "jpeg": encode(rgb, "JPEG", quality=90),
        "jpeg grey": encode(grey, "JPEG", quality=90),
        "jpeg cmyk": encode(rgb.convert("CMYK"), "JPEG", quality=90),
        "jpeg progressive": encode(rgb, "JPEG", quality=90, progressive=True),
        "jpeg exif turned": encode(rgb, "JPEG", quality=90, exif=turned),
        "mpo": encode(rgb, "MPO", **frames),
        "png": encode(rgb, "PNG"),
        "png alpha": encode(rgba, "PNG"),
        "png grey": encode(grey, "PNG"),
        "png grey alpha": encode(grey_alpha, "PNG"),
        "png palette": encode(palette, "PNG"),
        "png palette transparent": encode(palette, "PNG", transparency=bytes(range(0, 256, 4))),
        "png rgb transparent": encode(rgb, "PNG", transparency=rgb.getpixel((5, 5))),
        "png grey transparent": encode(grey, "PNG", transparency=grey.getpixel((5, 5))),
        "png 16-bit": encode(deep, "PNG"),
        "png 1-bit": encode(grey.convert("1"), "PNG"),
        "apng": encode(rgb, "PNG", **frames),
        "gif": encode(palette, "GIF"),
        "gif animated": encode(palette, "GIF", save_all=True, append_images=[palette.rotate(90)]),
        "bmp": encode(rgb, "BMP"),
        "webp": encode(rgb, "WEBP", quality=90),
        "webp lossless alpha": encode(rgba, "WEBP", lossless=True),
        "webp animated": encode(rgb, "WEBP", **frames),
        "tiff": encode(rgb, "TIFF"),
        "tiff lzw": encode(rgb, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": encode(rgb, "TIFF", compression="jpeg"),
        "tiff 16-bit": encode(deep, "TIFF"),
        "tiff float": encode(grey.convert("F"), "TIFF"),
        "tiff cmyk": encode(rgb.convert("CMYK"), "TIFF"),
        "tiff lab": encode(rgb.convert("LAB"), "TIFF"),
        "avif": encode(rgb, "AVIF", quality=90),
        "avif alpha": encode(rgba, "AVIF", quality=90),
    }
