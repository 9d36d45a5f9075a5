"""Drawings for those who have no picture at hand."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

SIZE = (320, 240)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a file has it."""

    name: str
    data: bytes
    """The encoded file."""


def drawings() -> list[Picture]:
    """Five pictures, of which the first two are alike and the others are not."""
    return [Picture(name, _png(draw)) for name, draw in DRAWINGS.items()]


def _png(draw: Callable[[ImageDraw.ImageDraw], None]) -> bytes:
    image = Image.new("RGB", SIZE, "white")
    draw(ImageDraw.Draw(image))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _red_disc(canvas: ImageDraw.ImageDraw) -> None:
    canvas.ellipse((90, 50, 230, 190), fill="crimson")


def _red_disc_lower_right(canvas: ImageDraw.ImageDraw) -> None:
    canvas.ellipse((120, 80, 260, 220), fill="crimson")


def _chessboard(canvas: ImageDraw.ImageDraw) -> None:
    width, height = SIZE
    for x in range(0, width, 40):
        for y in range(0, height, 40):
            canvas.rectangle((x, y, x + 39, y + 39), fill="black" if (x + y) % 80 else "white")


def _sunset(canvas: ImageDraw.ImageDraw) -> None:
    width, height = SIZE
    for y in range(height):
        canvas.line((0, y, width, y), fill=(40 + 200 * y // height, 60 + 60 * y // height, 140 - 100 * y // height))
    canvas.ellipse((130, 130, 190, 190), fill="gold")
    canvas.rectangle((0, 180, width, height), fill="midnightblue")


def _stripes(canvas: ImageDraw.ImageDraw) -> None:
    for x in range(-240, 320, 48):
        canvas.polygon(((x, 240), (x + 24, 240), (x + 264, 0), (x + 240, 0)), fill="seagreen")


DRAWINGS: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    "red disc": _red_disc,
    "red disc, moved": _red_disc_lower_right,
    "chessboard": _chessboard,
    "sunset": _sunset,
    "green stripes": _stripes,
}
