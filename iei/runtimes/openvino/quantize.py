"""Converted model → int8, fitted to pictures and compared with float32 on others.

    python -m iei.runtimes.openvino.quantize CHECKPOINT CONVERTED FOLDER [--calibration PICTURES]

A program of its own, because NNCF imports whatever it finds. The image side is quantised; texts stay in float32.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import nncf
import numpy as np
import numpy.typing as npt
import openvino as ov
from PIL import Image, ImageOps

from iei.checkpoints.checkpoint import read_checkpoint
from iei.errors import StartupError
from iei.machine import cores
from iei.models.spec import POOLED, Geometry, Quality
from iei.runtimes.openvino import program
from iei.runtimes.openvino.cache import versions
from iei.runtimes.openvino.converted import IMAGE_GRAPH, TEXT_GRAPH, Converted, read_converted, sha256
from iei.runtimes.openvino.drawings import drawings
from iei.runtimes.openvino.runtime import Graph, of_size, read

PICTURES = 128
"""Calibrated on, and as many others compared on."""
FEWEST = 32
"""Pictures of each kind, below which a percentile and neighbours mean nothing."""
NEIGHBOURS = 10
BATCH = 8

Batch = npt.NDArray[np.generic]
"""uint8 or float32 [B, H, W, 3]."""
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a family is quantised."""

    transformer: bool = True
    smooth: float = 0.95
    """SmoothQuant's α: how much of the range of activations moves into the weights; -1: none."""


RECIPES: Mapping[str, Recipe] = {
    **dict.fromkeys(("convnext", "convnextv2", "dinov3_convnext", "resnet"), Recipe(transformer=False)),
    # Published: 83.6 % of ImageNet with SmoothQuant, 85.1 % without it, 85.3 % in float32.
    **dict.fromkeys(("swin", "swinv2"), Recipe(smooth=-1)),
}
"""`model_type` → its recipe, where it is not the one of plain transformers."""


def quantize(checkpoint_folder: Path, converted_folder: Path, calibration: Path | None, folder: Path) -> Converted:
    """Writes the int8 version of a converted model into an empty folder.

    Raises:
        StartupError: there are too few pictures.
    """
    checkpoint, converted = read_checkpoint(checkpoint_folder), read_converted(converted_folder)
    assert checkpoint.geometry
    assert converted.image
    fit, others = _pictures(checkpoint.geometry, calibration)
    graph = read(converted_folder / IMAGE_GRAPH)
    recipe = RECIPES.get(checkpoint.model_type, Recipe())
    quantized = nncf.quantize(
        graph,
        nncf.Dataset(fit),
        subset_size=len(fit),
        model_type=nncf.ModelType.TRANSFORMER if recipe.transformer else None,
        preset=nncf.QuantizationPreset.MIXED,
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=recipe.smooth)
        ),
    )
    ov.save_model(quantized, folder / IMAGE_GRAPH, compress_to_fp16=False)
    for suffix in (".xml", ".bin") if converted.text else ():
        file = Path(TEXT_GRAPH).with_suffix(suffix)
        shutil.copyfile(converted_folder / file, folder / file)
    outputs = converted.image.side.outputs
    ours, exact = (
        _vectors(read(each / IMAGE_GRAPH), converted.image.folds, outputs, checkpoint.geometry, others)
        for each in (folder, converted_folder)
    )
    name = calibration.name if calibration else "drawn"
    result = replace(
        converted,
        made_with={**versions(), "nncf": nncf.__version__},
        files={file.name: sha256(file) for file in folder.iterdir()},
        quality=worst(quality(ours[output], exact[output], name) for output in exact),
    )
    result.write(folder)
    return result


def quality(ours: Vectors, exact: Vectors, calibration: str) -> Quality:
    """Compares vectors [N, D] of the same pictures."""
    ours, exact = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (ours, exact))
    cosines = (ours * exact).sum(1)
    near, truly_near = (_neighbours(each) for each in (ours, exact))
    kept = [len(np.intersect1d(*pair)) / NEIGHBOURS for pair in zip(near, truly_near, strict=True)]
    return Quality(
        median_cosine=float(np.median(cosines)),
        low_cosine=float(np.percentile(cosines, 1)),
        neighbours=float(np.mean(kept)),
        pictures=len(ours),
        calibration=calibration,
    )


def worst(measured: Iterator[Quality]) -> Quality:
    """The worst of each figure."""
    first, *others = measured
    for other in others:
        first = replace(
            first,
            median_cosine=min(first.median_cosine, other.median_cosine),
            low_cosine=min(first.low_cosine, other.low_cosine),
            neighbours=min(first.neighbours, other.neighbours),
        )
    return first


def _neighbours(vectors: Vectors) -> npt.NDArray[np.intp]:
    """Of unit vectors [N, D] the indices of the nearest others, [N, 10]."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    return np.argsort(-cosines, axis=1)[:, :NEIGHBOURS]


def _vectors(
    graph: ov.Model, folds: bool, outputs: Sequence[str], geometry: Geometry, batches: Sequence[Batch]
) -> dict[str, Vectors]:
    """Pooled outputs → their vectors of all pictures. `max` is left out: it is what noise changes most."""
    compiled = Graph(of_size(graph, geometry) if folds else graph, outputs, cores(), ov.Type.f32)
    pooled = [name for name in outputs if name in POOLED and name != "max"]
    pictures = np.concatenate(batches)
    results = [compiled.run([pictures[at : at + BATCH]], pooled) for at in range(0, len(pictures), BATCH)]
    return {name: np.concatenate([result[name] for result in results]) for name in pooled}


def _pictures(geometry: Geometry, folder: Path | None) -> tuple[list[Batch], list[Batch]]:
    """Batches of one picture to calibrate on, and others to compare on.

    Raises:
        StartupError: `folder` has too few.
    """
    height, width = geometry.size
    if folder is None:
        drawn = list(drawings(2 * PICTURES, (width, height), seed=0))
    else:
        drawn = list(islice(_opened(folder), 2 * PICTURES))
        if len(drawn) < 2 * FEWEST:
            raise StartupError(
                f"IEI_CALIBRATION={folder} has {len(drawn)} pictures that can be read: {2 * FEWEST} is the fewest."
            )
    # Calibration needs the range of values, not the exact pixels of the model's own preprocessing.
    fitted = (ImageOps.fit(picture.convert("RGB"), (width, height), Image.Resampling.BICUBIC) for picture in drawn)
    batches = [np.asarray(each, np.float32 if geometry.float_resize else np.uint8)[None] for each in fitted]
    return batches[::2], batches[1::2]


def _opened(folder: Path) -> Iterator[Image.Image]:
    for file in sorted(folder.rglob("*")):
        try:
            with Image.open(file) as picture:
                picture.draft("RGB", (512, 512))
                yield ImageOps.exif_transpose(picture).convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError):  # a folder, or a file that is no picture
            continue


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("checkpoint", "converted", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--calibration", type=Path)
    given = parser.parse_args()
    program.run(lambda: quantize(given.checkpoint, given.converted, given.calibration, given.folder))


if __name__ == "__main__":
    main()
