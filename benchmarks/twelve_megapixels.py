"""JPEGs of 12 megapixels, seeded: like photos of phones, and the patterns on which a cheap reduction shows.

    python -m benchmarks.twelve_megapixels FOLDER [--count 100]

Writes FOLDER/KIND/NUMBER.jpg; files that are there stay. Two processes need about three minutes for 100 of each kind.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage
from PIL import Image

from tests.pictures import photos

WIDTH, HEIGHT = 4000, 3000
QUALITIES = (85, 90)

Levels = npt.NDArray[np.float32]
"""float32[HEIGHT, WIDTH, 3 or 1] in [0, 255], where noise may lie beyond."""


@cache
def _sources(*names: str) -> list[Image.Image]:
    folder = Path(skimage.__file__).with_name("data")
    return [Image.open(folder / name).convert("RGB") for name in names]


def _noise(rng: np.random.Generator, cell: float, channels: int = 1) -> Levels:
    """Normal noise of deviation 1 that is even over about `cell` pixels."""
    size = max(2, round(HEIGHT / cell)), max(2, round(WIDTH / cell))
    drawn = rng.standard_normal((*size, channels), np.float32)
    if cell == 1:
        return drawn
    bands = [Image.fromarray(band) for band in np.moveaxis(drawn, 2, 0)]
    return np.stack([np.asarray(band.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)) for band in bands], axis=-1)


def photo(rng: np.random.Generator) -> Levels:
    """A part of a real photo, enlarged, with detail and sensor noise that an enlargement lacks."""
    more = ("motorcycle_right.png", "hubble_deep_field.jpg", "retina.jpg", "ihc.png", "coins.png", "camera.png")
    known = [*photos().values(), *_sources(*more)]
    source = known[rng.integers(len(known))]
    if rng.random() < 0.5:
        source = source.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    unit = min(source.width / 4, source.height / 3) * rng.uniform(0.5, 1)
    left, top = rng.uniform(0, source.width - 4 * unit), rng.uniform(0, source.height - 3 * unit)
    box = (left, top, left + 4 * unit, top + 3 * unit)
    enlarged = np.asarray(source.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=box), np.float32)
    detail = sum(rng.uniform(1, 6) * _noise(rng, cell) for cell in (1, 2, 4, 8))
    return enlarged + detail


def texture(rng: np.random.Generator) -> Levels:
    """Grass, gravel or bricks, mirrored side by side, at one to three times their size; or noise of many sizes."""
    if rng.random() < 0.25:
        octaves = [2.0**power for power in range(8)]
        whole = sum(cell ** rng.uniform(0.2, 1) * _noise(rng, cell, channels=3) for cell in octaves)
        return np.asarray(128 + 50 * whole / np.std(whole), np.float32)
    source = _sources("grass.png", "gravel.png", "brick.png")[rng.integers(3)]
    side = round(source.width * rng.uniform(1, 3))
    tile = np.asarray(source.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    pair = np.concatenate([tile, tile[:, ::-1]], axis=1)
    four = np.concatenate([pair, pair[::-1]])
    tiled = np.tile(four, (HEIGHT // side + 1, WIDTH // side + 1, 1))[:HEIGHT, :WIDTH]
    return np.asarray(tiled * rng.uniform(0.5, 1.2, 3), np.float32)


def lines(rng: np.random.Generator) -> Levels:
    """Lines 1.5 to 20 pixels wide, upright, level or slanting, in two colours; or crossed, or rings."""
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    width = np.exp(rng.uniform(np.log(1.5), np.log(20)))
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    form = rng.choice(["lines", "crossed", "rings"], p=[0.6, 0.2, 0.2])
    along = x * np.cos(angle) + y * np.sin(angle)
    if form == "rings":
        along = np.hypot(x - rng.uniform(0, WIDTH), y - rng.uniform(0, HEIGHT))
    on = (along // width) % 2 == 0
    if form == "crossed":
        on = on ^ ((y * np.cos(angle) - x * np.sin(angle)) // width % 2 == 0)
    colours = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    drawn: Levels = np.where(on[..., None], colours[0], colours[1])
    return drawn


def noise(rng: np.random.Generator) -> Levels:
    """Independent levels, grey or coloured, in squares of 1 to 8 pixels."""
    cell, channels = int(rng.integers(1, 9)), int(rng.choice([1, 3]))
    drawn = rng.uniform(0, 255, (-(-HEIGHT // cell), -(-WIDTH // cell), channels)).astype(np.float32)
    return drawn.repeat(cell, axis=0).repeat(cell, axis=1)[:HEIGHT, :WIDTH]


KINDS: dict[str, Callable[[np.random.Generator], Levels]] = {
    "photos": photo,
    "textures": texture,
    "lines": lines,
    "noise": noise,
}
"""Kind → what draws one of its pictures."""


def write(file: Path, kind: str, number: int) -> None:
    """Writes the picture `number` of a kind, unless it is there."""
    if file.exists():
        return
    rng = np.random.default_rng([number, *kind.encode()])
    levels = np.broadcast_to(np.clip(np.rint(KINDS[kind](rng)), 0, 255).astype(np.uint8), (HEIGHT, WIDTH, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    Image.fromarray(levels).save(part, "JPEG", quality=int(rng.integers(QUALITIES[0], QUALITIES[1] + 1)))
    part.rename(file)


def write_all(folder: Path, count: int) -> dict[str, list[Path]]:
    """`count` pictures of every kind in `folder`, written where they are missing: kind → files."""
    files = {kind: [folder / kind / f"{number:03}.jpg" for number in range(count)] for kind in KINDS}
    with ProcessPoolExecutor() as pool:
        written = [pool.submit(write, file, kind, number) for kind in files for number, file in enumerate(files[kind])]
        for each in written:
            each.result()
    return files


def main() -> None:
    """Writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100, help="of each kind (default: %(default)s)")
    options = parser.parse_args()
    write_all(options.folder, options.count)


if __name__ == "__main__":
    main()
