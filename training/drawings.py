"""Pictures drawn by a program: what the demo model is trained on. No photo, and nobody's picture, is among them.

A drawing is a *scene* (shapes with textures, shading and shadows over a textured ground), one *texture* alone, a
*crowd* of like things (cells, coins, stars), a *page* of lines of text, or one large *glyph*. All come from NumPy
generators: the same seeds draw the same picture.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 224

Field = NDArray[np.float32]
"""float32[SIDE, SIDE], from 0 to 1: a height, a mask, or where in a palette."""

Picture = NDArray[np.float32]
"""float32[SIDE, SIDE, 3], from 0 to 1."""

_Y, _X = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)


def draw(rng: Generator, hand: Generator) -> NDArray[np.uint8]:
    """Draws a picture: uint8[SIDE, SIDE, 3].

    Args:
        rng: decides what is drawn.
        hand: decides how a glyph is written: with another one, it is the same glyph, written again.
    """
    what = kind(rng)
    picture = _lit(_glyph(sign(rng), hand) if what == "glyph" else KINDS[what](rng), hand)
    if hand.random() < 0.15:
        picture = np.repeat(picture.mean(2, keepdims=True), 3, 2)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def kind(rng: Generator) -> str:
    """The kind of picture that `draw` begins with."""
    return str(rng.choice(list(SHARES), p=list(SHARES.values())))


def sign(rng: Generator) -> str | int:
    """What a glyph is: a letter or digit, or the seed of a scribble."""
    return str(rng.choice(_LETTERS)) if rng.random() < 0.75 else int(rng.integers(2**31))


def _scene(rng: Generator) -> Picture:
    """Things on a ground, each darkening what it stands on and lit from one side."""
    picture = _texture(rng)
    if rng.random() < 0.5:  # a horizon: ground below, sky above
        picture = _over(
            _gradient_sky(rng), picture, _soft(_Y + _noise(rng) * rng.uniform(0, 0.5), rng.uniform(-0.5, 0.6))
        )
    side = rng.uniform(-0.1, 0.1, 2) * SIDE
    for _ in range(rng.integers(1, 9)):
        mask = _shape(rng)
        shadow = np.roll(_blurred(mask, rng.uniform(2, 9)), side.astype(int), (0, 1))
        picture = picture * (1 - rng.uniform(0, 0.7) * shadow)[..., None]
        fill = _texture(rng) if rng.random() < 0.7 else np.broadcast_to(rng.random(3, np.float32), picture.shape)
        round_ = _blurred(mask, rng.uniform(4, 14))
        fill = fill * (1 - rng.uniform(0, 0.8) * (1 - round_ * np.clip(1 + side[0] / SIDE * 8 * _Y, 0, 1.4)))[..., None]
        picture = _over(picture, fill, mask)
    return picture


def _texture(rng: Generator) -> Picture:
    """A field in the colours of a palette."""
    kind = rng.choice(np.array(_FIELDS, object))
    return _coloured(kind(rng), rng)


def _crowd(rng: Generator) -> Picture:
    """Many small things of one kind on a calm ground: cells, coins, stars, leaves."""
    canvas, rim = Image.new("L", (SIDE, SIDE)), Image.new("L", (SIDE, SIDE))
    size, flat = rng.uniform(0.01, 0.14) * SIDE, rng.uniform(0.4, 1)
    for x, y in rng.uniform(0, SIDE, (rng.integers(8, 120), 2)):
        r = size * rng.uniform(0.5, 1.3)
        box = (x - r, y - r * flat, x + r, y + r * flat)
        ImageDraw.Draw(canvas).ellipse(box, int(rng.uniform(120, 255)))
        ImageDraw.Draw(rim).ellipse(box, outline=255, width=max(1, int(r / 6)))
    mask = _blurred(_field(canvas), rng.uniform(0, 2))
    picture = _over(_gradient_sky(rng), _texture(rng), mask)
    return _over(picture, np.broadcast_to(rng.random(3, np.float32), picture.shape), _field(rim) * rng.uniform(0, 1))


def _page(rng: Generator) -> Picture:
    """Lines of letters on paper, seen whole or from near."""
    canvas = Image.new("L", (SIDE, SIDE))
    size = rng.uniform(8, 32)
    font = ImageFont.load_default(size)
    for line in np.arange(rng.uniform(0, size), SIDE, size * rng.uniform(1, 1.8)):
        words = " ".join("".join(rng.choice(_LETTERS, rng.integers(1, 9))) for _ in range(12))
        ImageDraw.Draw(canvas).text((rng.uniform(0, 2) * size, line), words, fill=255, font=font)
    paper = 1 - (1 - _texture(rng)) * rng.uniform(0, 0.5)
    ink = np.broadcast_to(rng.random(3, np.float32) * 0.4, paper.shape)
    return _over(paper, ink, _field(canvas)) if rng.random() < 0.8 else 1 - _over(paper, ink, _field(canvas))


def _glyph(what: str | int, rng: Generator) -> Picture:
    """One large letter, digit or scribble, sharp or seen in a few pixels."""
    canvas = Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(canvas)
    if isinstance(what, str):
        font = ImageFont.load_default(rng.uniform(0.5, 1.1) * SIDE)
        middle = tuple(rng.uniform(0.4, 0.6, 2) * SIDE)
        pen.text(middle, what, fill=255, font=font, anchor="mm", stroke_width=int(rng.integers(0, 9)))
    else:
        pen.line(_scribble(np.random.default_rng(what), rng.uniform(0.5, 0.8)), 255, int(rng.integers(8, 34)), "curve")
    if rng.random() < 0.6:
        few = int(8 * 4 ** rng.random())
        canvas = canvas.resize((few, few), Image.Resampling.BOX).resize(canvas.size, Image.Resampling.BILINEAR)
    ground, ink = rng.random((2, 3), np.float32)
    if rng.random() < 0.6:
        ground, ink = np.float32([0, 1]) if rng.random() < 0.5 else np.float32([1, 0])
    shape = (SIDE, SIDE, 3)
    return _over(np.broadcast_to(ground, shape), np.broadcast_to(ink, shape), _field(canvas))


def _scribble(rng: Generator, size: float) -> list[tuple[float, float]]:
    """A smooth line through a few points, as large as this share of the picture, in its middle."""
    points = np.cumsum(rng.normal(0, 0.35, (rng.integers(3, 8), 2)), 0)
    points = (points - points.min(0)) / np.ptp(points, 0).max()
    points = (points * size + (1 - size) / 2) * SIDE
    steps = np.linspace(0, len(points) - 1, 60)
    curve = np.stack([np.interp(steps, range(len(points)), column) for column in points.T], 1)
    curve = np.stack([np.convolve(np.pad(c, 4, "edge"), np.ones(9) / 9, "valid") for c in curve.T], 1)
    return [tuple(point) for point in curve]


KINDS: dict[str, Callable[[Generator], Picture]] = {
    "scene": _scene,
    "texture": _texture,
    "crowd": _crowd,
    "page": _page,
}
SHARES = {"scene": 0.45, "texture": 0.2, "crowd": 0.1, "page": 0.05, "glyph": 0.2}
"""Kind → its share of the drawings."""
_LETTERS = list(string.ascii_letters + 3 * string.digits + "&%$#?!+=*@")


def _noise(rng: Generator) -> Field:
    """Noise whose power falls with frequency as in clouds (steep), bark or gravel (flat), often along one direction."""
    x, y = np.fft.rfftfreq(SIDE)[None], np.fft.fftfreq(SIDE)[:, None]
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.7))
    along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    frequency = np.hypot(along * stretch, across / stretch) + rng.choice([1, 2, 8]) / SIDE
    spectrum = frequency ** -rng.uniform(0.6, 2.6) * np.exp(2j * np.pi * rng.random(frequency.shape))
    return _spread(np.fft.irfft2(spectrum, (SIDE, SIDE)))


def _waves(rng: Generator) -> Field:
    """Stripes, from soft to hard, bent a little."""
    x, _ = _plane(rng)
    return _edge(np.sin(x * rng.uniform(4, 60) + rng.uniform(0, 6)), rng)


def _grid(rng: Generator) -> Field:
    """Tiles, checks or bricks: rows, of which every other one may be shifted."""
    x, y = _plane(rng)
    many = rng.uniform(2, 16)
    rows = np.floor(y * many)
    columns = x * many * rng.uniform(0.3, 1.5) + rows % 2 * rng.choice([0, 0.5])
    joint = (
        np.minimum(np.abs(y * many - rows - 0.5), np.abs(columns % 1 - 0.5))
        if rng.random() < 0.3
        else (np.maximum(np.abs(y * many - rows - 0.5), np.abs(columns % 1 - 0.5)))
    )
    stone = np.sin(rows * 12.9898 + np.floor(columns) * 78.233) * 43758.5453 % 1
    return _spread(stone * rng.uniform(0, 0.5) + (joint < rng.uniform(0.2, 0.47)) + _noise(rng) * rng.uniform(0, 0.6))


def _cells(rng: Generator) -> Field:
    """Distance to the nearest of many points: pebbles, scales, cracked earth."""
    points = rng.uniform(-1.2, 1.2, (rng.integers(6, 90), 2)).astype(np.float32)
    x, y = _X[::2, ::2].ravel(), _Y[::2, ::2].ravel()
    squared = (x[:, None] - points[:, 0]) ** 2 + (y[:, None] - points[:, 1]) ** 2
    first, second = np.sqrt(np.partition(squared, 1, 1)[:, :2].T)
    field = (second - first if rng.random() < 0.6 else first).reshape(SIDE // 2, SIDE // 2)
    return _spread(
        np.asarray(Image.fromarray(field).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) ** rng.uniform(0.4, 1.2)
    )


def _gradient(rng: Generator) -> Field:
    x, y = _plane(rng)
    return _spread(x if rng.random() < 0.5 else np.hypot(x - rng.uniform(-1, 1), y))


_FIELDS = [_noise, _noise, _noise, _waves, _grid, _cells, _gradient]


def _shape(rng: Generator) -> Field:
    """The mask of a polygon, star, ellipse, bar, ring or blob."""
    corners = rng.choice([3, 4, 5, 6, 8, 40])
    angles = (
        np.sort(rng.uniform(0, 2 * np.pi, corners)) if rng.random() < 0.4 else np.arange(corners) * 2 * np.pi / corners
    )
    radius = np.exp(rng.normal(-1.2, 0.5))
    radii = radius * (1 - rng.uniform(0, 0.7) * (np.arange(corners) % 2) * (rng.random() < 0.4))
    if corners == 40 and rng.random() < 0.6:  # a blob: a few slow waves around a circle
        radii = radius * (
            1 + sum(rng.normal(0, 0.25) / n * np.cos(n * angles + rng.uniform(0, 6)) for n in range(1, 5))
        )
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.5))
    x, y = radii * np.cos(angles) * stretch, radii * np.sin(angles) / stretch
    middle = rng.uniform(-0.9, 0.9, 2)
    x, y = middle[0] + x * np.cos(turn) - y * np.sin(turn), middle[1] + x * np.sin(turn) + y * np.cos(turn)
    canvas = Image.new("L", (2 * SIDE, 2 * SIDE))
    outline = [tuple(point) for point in (np.stack([x, y], 1) + 1) * SIDE]
    if rng.random() < 0.15:
        ImageDraw.Draw(canvas).line([*outline, outline[0]], 255, int(rng.uniform(4, 40)), "curve")
    else:
        ImageDraw.Draw(canvas).polygon(outline, 255)
    return _field(canvas.resize((SIDE, SIDE), Image.Resampling.BOX))


def _plane(rng: Generator) -> tuple[Field, Field]:
    """Coordinates that are turned, seen at an angle, and bent."""
    turn, tilt = rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4) * (rng.random() < 0.5)
    x = (np.cos(turn) * _X + np.sin(turn) * _Y) / (1 + tilt * _Y)
    y = (np.cos(turn) * _Y - np.sin(turn) * _X) / (1 + tilt * _Y)
    if rng.random() < 0.4:
        x = x + rng.uniform(0, 0.25) * np.sin(y * rng.uniform(2, 9))
    return x, y


def _coloured(field: Field, rng: Generator) -> Picture:
    """A palette of two to five colours, near one another or far apart, along the values of a field."""
    colours = rng.random(3) + rng.normal(0, rng.choice([0.08, 0.2, 0.5]), (rng.integers(2, 6), 3))
    if rng.random() < 0.5:  # most of the world is less colourful than random numbers are
        colours = colours.mean(1, keepdims=True) + (colours - colours.mean(1, keepdims=True)) * rng.uniform(0, 0.6)
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(field, stops, channel) for channel in np.clip(colours, 0, 1).T], 2).astype(np.float32)


def _gradient_sky(rng: Generator) -> Picture:
    return _coloured(_gradient(rng), rng)


def _lit(picture: Picture, rng: Generator) -> Picture:
    """Light from one side, or a lamp's circle."""
    light = _gradient(rng) if rng.random() < 0.7 else _noise(rng)
    return picture * (1 - rng.uniform(0, 0.6) * (rng.random() < 0.6) * light)[..., None]


def _over(below: Picture, above: Picture, mask: Field) -> Picture:
    return below + (above - below) * mask[..., None]


def _edge(field: Field, rng: Generator) -> Field:
    return _soft(field, 0, rng.uniform(1, 12))


def _soft(field: Field, level: float, hardness: float = 30) -> Field:
    """1 above a level, 0 below, with a soft border."""
    return (0.5 + 0.5 * np.tanh((field - level) * hardness)).astype(np.float32)


def _spread(field: NDArray[np.floating]) -> Field:
    """Stretched to 0…1, without the outermost hundredths."""
    low, high = np.percentile(field[::4, ::4], [1, 99])
    return np.clip((field - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def _field(canvas: Image.Image) -> Field:
    return np.asarray(canvas, np.float32) / 255


def _blurred(field: Field, radius: float) -> Field:
    return _field(Image.fromarray((field * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius)))
