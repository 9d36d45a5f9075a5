"""How fast large JPEGs become pixels with IEI_FAST_DECODE, and how far their vectors are from the exact ones.

    python -m benchmarks.large_pictures [--pictures FOLDER] [--models NAME=MODEL …] [--count 100]

Each of the 12-megapixel JPEGs of benchmarks/twelve_megapixels.py is decoded and resized twice, in turn, in one thread:
by transformers' PIL image processor and by IEI; then the model embeds what both gave. Writes
benchmarks/results/large_pictures.json and the section "large_pictures" of docs/benchmarks.md, unless models or another
count are given.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import transformers
from PIL import Image

from benchmarks import machine
from benchmarks.report import progress, table, write_down
from benchmarks.twelve_megapixels import HEIGHT, KINDS, WIDTH, write_all
from benchmarks.workload import write_model
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits, configure_pillow, decoded
from iei.inputs.geometry import to_pixels
from iei.models.catalog import read_catalog
from iei.models.spec import Geometry
from iei.runtimes import loading
from iei.runtimes.api import Model
from iei.settings import read_settings
from tests.checkpoints.vision_checkpoints import write_checkpoint

FAST = DecodeLimits(max_pixels=64_000_000, max_side=65_535, budget=PixelBudget(64_000_000), fast=True)
COUNT = 100


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    count: int
    """Pictures of each kind."""
    models: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """One picture: the milliseconds of either way, and how far ours is from transformers'."""

    megabytes: float
    transformers_ms: float
    fast_ms: float
    mean_difference: float
    """Of levels from 0 to 255."""
    max_difference: float
    cosine: float
    """Of the model's default vectors."""


@dataclass(frozen=True)
class Pictures:
    """All pictures of one kind, in one model."""

    pictures: list[Picture]


def seeded(folder: Path) -> dict[str, str]:
    """Untrained models that resize as ViT and as DINOv2 do: name → folder."""
    vit, dinov2 = folder / "vit", folder / "dinov2"
    write_model(vit)
    dinov2.mkdir()
    return {"ViT-Tiny": str(vit), "DINOv2, 2 layers": str(write_checkpoint("dinov2", dinov2))}


def load(model: str) -> tuple[Model, Geometry, Any]:
    """The model as the engine runs it, how it wants pictures, and transformers' processor for it."""
    settings = read_settings(model=model, device="cpu", dtype="float32")
    request, *_ = read_catalog(settings.models).load_requests("cpu", settings.load)
    loaded = loading.load(request)
    assert loaded.spec.image is not None
    processor = transformers.AutoImageProcessor.from_pretrained(model, backend="pil")
    return loaded, loaded.spec.image.geometry, processor


def measure(model: Model, geometry: Geometry, processor: Any, files: Iterable[Path]) -> Pictures:
    """Every file, either way."""

    def theirs(data: bytes) -> npt.NDArray[Any]:
        with Image.open(io.BytesIO(data)) as image:
            pixels = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        return np.ascontiguousarray(np.asarray(pixels).transpose(1, 2, 0))

    def ours(data: bytes) -> npt.NDArray[Any]:
        with decoded(data, FAST, target=geometry.resized) as image:
            return to_pixels(image, geometry, fast=True)

    found = []
    for file in files:
        data = file.read_bytes()
        (reference, reference_ms), (fast, fast_ms) = timed(theirs, data), timed(ours, data)
        differences = np.abs(fast.astype(np.float32) - reference)
        cosine = cosine_of(model, [reference.astype(fast.dtype), fast])
        far = float(differences.mean()), float(differences.max())
        found.append(Picture(len(data) / 1e6, reference_ms, fast_ms, *far, cosine))
    return Pictures(found)


def timed(work: Callable[[bytes], npt.NDArray[Any]], data: bytes) -> tuple[npt.NDArray[Any], float]:
    """What it returns, and the milliseconds that it takes."""
    began = time.perf_counter()
    result = work(data)
    return result, 1e3 * (time.perf_counter() - began)


def cosine_of(model: Model, pair: Sequence[npt.NDArray[Any]]) -> float:
    """Of the default vectors of two pictures."""
    assert model.spec.image is not None
    output = model.spec.image.pooling
    a, b = (row[output].astype(np.float64) for row in model.run("image", pair, [output]))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def summary(plan: Plan, found: dict[str, Pictures]) -> str:
    """The table, and what it was measured on."""
    where = machine.describe()
    versions = ", ".join(f"{name} {where[name]}" for name in ("python", "torch", "transformers", "pillow"))
    return "\n\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d}, {where['cpu']}, {where['cores']} cores; {versions}.",
            f"{plan.count} JPEGs of {WIDTH}×{HEIGHT} pixels of each kind; milliseconds are medians, of one thread.",
            table(HEADER, [row(name, pictures.pictures) for name, pictures in found.items()]),
        ]
    )


HEADER = [
    "pictures",
    "MB",
    "transformers, ms",
    "IEI fast, ms",
    "× transformers",
    "least ×",
    "cosine, least",
    "cosine, 1st percentile",
    "levels off, mean",
    "most",
]


def row(name: str, pictures: Sequence[Picture]) -> list[str]:
    """One kind in one model."""

    def each(field: str) -> npt.NDArray[np.float64]:
        return np.array([getattr(picture, field) for picture in pictures])

    times = each("transformers_ms") / each("fast_ms")
    milliseconds = [f"{np.median(each(f'{way}_ms')):.0f}" for way in ("transformers", "fast")]
    return [
        name,
        f"{np.median(each('megabytes')):.1f}",
        *milliseconds,
        f"{np.median(times):.1f}",
        f"{times.min():.1f}",
        f"{each('cosine').min():.6f}",
        f"{np.percentile(each('cosine'), 1):.6f}",
        f"{each('mean_difference').mean():.2f}",
        f"{each('max_difference').max():.0f}",
    ]


def main() -> None:
    """Measures, prints the table and, of the default models and count, writes it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="where they lie, or are written and stay")
    parser.add_argument("--models", nargs="+", metavar="NAME=MODEL", help="folders or hub ids, instead of seeded ones")
    parser.add_argument("--count", type=int, default=COUNT, help="pictures of each kind (default: %(default)s)")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    configure_pillow(FAST.max_pixels)
    with tempfile.TemporaryDirectory(prefix="iei-large-") as folder:
        progress("pictures …")
        files = write_all(options.pictures or Path(folder, "pictures"), options.count)
        given = dict(pair.split("=", 1) for pair in options.models or ())
        models = given or seeded(Path(folder))
        found = {}
        for name, model in models.items():
            parts = load(model)
            for kind in KINDS:
                progress(f"{kind}, {name} …")
                found[f"{kind}, {name}"] = measure(*parts, files[kind])
    plan = Plan(options.count, tuple(models))
    text = summary(plan, found)
    print(text)
    if not given and options.count == COUNT:
        write_down("large_pictures", plan, [found], text)


if __name__ == "__main__":
    main()
