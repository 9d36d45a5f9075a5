"""How much the demo model's vectors mean: retrieval of augmented photos, and k-NN on small public sets, next to others.

    python -m benchmarks.demo_model                # writes benchmarks/results/demo_model.json and docs/models.md
    python -m benchmarks.demo_model --folder PATH  # any checkpoint of a picture model: prints its figures only

Nothing is downloaded: pictures and sets are those that scikit-image and scikit-learn ship. The model was not trained on
any of them.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits, load_sample_images
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.report import RESULTS, ROOT, progress, replace_section, table
from iei.checkpoints.demo import write_demo
from iei.inputs.geometry import to_pixels
from iei.runtimes.loading import load
from tests.load_requests import load_request

SEED = 7
VIEWS = 12
PAGE = ROOT / "docs" / "models.md"

Vectors = NDArray[np.float32]
"""float32[N, D]: unit vectors."""

Embed = Callable[[Sequence[Image.Image]], Vectors]

_NOT_PICTURES = {"chessboard_GRAY", "chessboard_RGB"}
"""In scikit-image's folder, but drawn."""

_SECOND_VIEWS = {"motorcycle_right"}
"""Of a scene that is there already: the other eye of a stereo pair."""


@dataclass(frozen=True)
class LabelledSet:
    """Pictures with labels, to classify by the nearest of those that were learnt."""

    train: Sequence[Image.Image]
    train_labels: NDArray[np.int64]
    test: Sequence[Image.Image]
    test_labels: NDArray[np.int64]

    def accuracy(self, embed: Embed, neighbours: int = 5) -> float:
        """Share of the test pictures whose label most of their nearest neighbours have."""
        classifier = KNeighborsClassifier(neighbours, metric="cosine").fit(embed(self.train), self.train_labels)
        return float(classifier.score(embed(self.test), self.test_labels))


def gallery() -> dict[str, Image.Image]:
    """The pictures that scikit-image and scikit-learn ship, by name."""
    files = sorted(Path(skimage.__file__).with_name("data").glob("*.[pj][np]g"))
    found = {file.stem: Image.open(file).convert("RGB") for file in files}
    for name in _NOT_PICTURES | _SECOND_VIEWS:
        del found[name]
    return found | {
        name: Image.fromarray(pixels)
        for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True)
    }


def view(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture as somebody else might have it: cropped, turned, mirrored, in another light, blurred, saved as JPEG.

    Half to all of its area, sides in a ratio changed by up to a fifth; turned by up to 10°, mirrored half of the time;
    brightness, contrast and colour by up to 30 % each; a Gaussian blur of up to 1.5 of 256 pixels; quality 30 to 90.
    """
    share, ratio = rng.uniform(0.5, 1), np.exp(rng.uniform(-0.2, 0.2))
    width = int(picture.width * min(1, (share * ratio) ** 0.5))
    height = int(picture.height * min(1, (share / ratio) ** 0.5))
    left, top = int(rng.integers(0, picture.width - width + 1)), int(rng.integers(0, picture.height - height + 1))
    seen = picture.crop((left, top, left + width, top + height)).resize((256, 256), Image.Resampling.BICUBIC)
    mean = tuple(int(value) for value in np.asarray(seen).mean((0, 1)))
    seen = seen.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC, fillcolor=mean)
    if rng.random() < 0.5:
        seen = seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for quality in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        seen = quality(seen).enhance(rng.uniform(0.7, 1.3))
    seen = seen.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))
    file = io.BytesIO()
    seen.save(file, "JPEG", quality=int(rng.integers(30, 91)))
    return Image.open(file).convert("RGB")


def retrieval(embed: Embed, views: int = VIEWS) -> float:
    """Share of the augmented views of the gallery whose nearest neighbour in the gallery is what they were made of."""
    rng = np.random.default_rng(SEED)
    originals = list(gallery().values())
    seen = [view(picture, rng) for picture in originals for _ in range(views)]
    nearest = (embed(seen) @ embed(originals).T).argmax(1)
    return float((nearest == np.repeat(np.arange(len(originals)), views)).mean())


def digits(many: int = 1797) -> LabelledSet:
    """scikit-learn's handwritten digits, 8×8 grey pixels: the first half of those asked for is learnt."""
    found = load_digits()
    pictures = [Image.fromarray((pixels * 15.9).astype(np.uint8)).convert("RGB") for pixels in found.images[:many]]
    half = many // 2
    return LabelledSet(pictures[:half], found.target[:half], pictures[half:], found.target[half:many])


def faces() -> LabelledSet:
    """scikit-image's part of Labelled Faces in the Wild, 25×25 grey pixels: 100 faces, 100 pieces of backgrounds."""
    pixels = np.load(Path(skimage.__file__).with_name("data") / "lfw_subset.npy")
    pictures = [Image.fromarray((each * 255).astype(np.uint8)).convert("RGB") for each in pixels]
    labels = np.repeat([1, 0], 100)
    return LabelledSet(pictures[::2], labels[::2], pictures[1::2], labels[1::2])


def textures() -> LabelledSet:
    """Squares of 96 pixels of scikit-image's brick, grass and gravel: learnt from the left halves, tested on the right.

    Each square's brightness is multiplied by 0.6 to 1.4, as clouds do.
    """
    rng = np.random.default_rng(SEED)
    folder = Path(skimage.__file__).with_name("data")
    sides: tuple[list[Image.Image], list[Image.Image]] = ([], [])
    labels = np.repeat(np.arange(3), 60)
    for name in ("brick", "grass", "gravel"):
        with Image.open(folder / f"{name}.png") as picture:
            for side, pictures in enumerate(sides):
                for _ in range(60):
                    left = side * 256 + int(rng.integers(0, 256 - 96))
                    top = int(rng.integers(0, 512 - 96))
                    square = picture.crop((left, top, left + 96, top + 96)).convert("RGB")
                    pictures.append(ImageEnhance.Brightness(square).enhance(rng.uniform(0.6, 1.4)))
    return LabelledSet(sides[0], labels, sides[1], labels)


def model(folder: str) -> Embed:
    """What IEI's own runtime computes with a checkpoint, `demo` or a folder, in its default pooling."""
    loaded = load(load_request("measured", folder))
    tower = loaded.spec.image
    assert tower is not None
    pooling = tower.pooling

    def embed(pictures: Sequence[Image.Image]) -> Vectors:
        pixels = [to_pixels(picture, tower.geometry) for picture in pictures]
        batches = (pixels[start : start + 32] for start in range(0, len(pixels), 32))
        return _units(
            np.stack([found[pooling] for batch in batches for found in loaded.run("image", batch, [pooling])])
        )

    return embed


def histogram(space: str, bins: tuple[int, int, int]) -> Embed:
    """Shares of colours, compared by their Bhattacharyya coefficient: the cosine of their square roots."""

    def of(picture: Image.Image) -> Vectors:
        pixels = np.asarray(picture.convert(space)).reshape(-1, 3)
        counts, _ = np.histogramdd(pixels, bins, range=[(0, 256)] * 3)
        return np.sqrt(counts.ravel() / len(pixels)).astype(np.float32)

    return lambda pictures: _units(np.stack([of(picture) for picture in pictures]))


def _units(vectors: Vectors) -> Vectors:
    units: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def _write_untrained(folder: Path) -> None:
    """The demo model as it was before it was trained (demo-v1): random weights that keep the variance of each layer."""
    write_demo(folder)
    rng = np.random.default_rng(20250501)
    weights = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if "layernorm" not in name:
            deviation = 0.1 if "embeddings" in name and "projection" not in name else weight[0].size ** -0.5
            weight = rng.normal(0, 0 if name.endswith("bias") else deviation, weight.shape).astype(np.float32)
        elif name.endswith("weight"):
            weight = np.ones_like(weight)
        else:
            weight = np.zeros_like(weight)
        weights[name] = weight
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def measure(embed: Embed) -> dict[str, float]:
    """Everything that this script measures of vectors."""
    sets = {"digits": digits(), "faces": faces(), "textures": textures()}
    return {"retrieval": retrieval(embed)} | {name: each.accuracy(embed) for name, each in sets.items()}


def main() -> None:
    """Measures, and writes the results and the page's table unless another checkpoint is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="another checkpoint than the demo model")
    args = parser.parse_args()
    if args.folder:
        print(json.dumps(measure(model(args.folder)), indent=2))
        return
    with tempfile.TemporaryDirectory() as folder:
        _write_untrained(Path(folder))
        contestants = {
            "the demo model": model("demo"),
            "the same, untrained": model(folder),
            "histograms, RGB 8×8×8": histogram("RGB", (8, 8, 8)),
            "histograms, HSV 16×8×4": histogram("HSV", (16, 8, 4)),
        }
        figures = {}
        for name, embed in contestants.items():
            figures[name] = measure(embed)
            progress(f"{name}: {figures[name]}")
    RESULTS.mkdir(exist_ok=True)
    results = {"pictures": sorted(gallery()), "views of each": VIEWS, "figures": figures}
    (RESULTS / "demo_model.json").write_text(json.dumps(results, indent=2) + "\n")
    rows = [[name, *(f"{100 * value:.1f}" for value in found.values())] for name, found in figures.items()]
    replace_section(PAGE, "demo_model", table(["%", *next(iter(figures.values()))], rows))


if __name__ == "__main__":
    main()
