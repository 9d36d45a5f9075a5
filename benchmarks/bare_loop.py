"""What one process gets out of this machine without any server: the yardstick for a server's overhead.

    python -m benchmarks.bare_loop MODEL PICTURES [--seconds 10] [--batches 1 2 4 8]

base64 → Pillow decode → resize → one batched forward of AutoModel → mean over tokens, again and again. No HTTP, no
JSON, torch on every core. PICTURES is a file with a JSON list of JPEG files in base64. The batch is the fastest of
`--batches` in a short trial. Prints a line of JSON: the batch, pictures per second, and CPU-ms per picture by stage.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel

TRIAL_S = 1.5


class Loop(Protocol):
    """Pictures to vectors, in this process."""

    @property
    def cpu_s(self) -> dict[str, float]:
        """Stage → seconds of CPU that all threads of this process have used for it."""

    def embed(self, pictures: Sequence[str]) -> np.ndarray:
        """float32[n, dimension]: the mean over all tokens of pictures in base64."""


def staged(cpu_s: dict[str, float], bounds: Sequence[float]) -> None:
    """Adds what the stages took, from `time.process_time` before each of them and after the last."""
    for stage, (start, end) in zip(("decode", "resize", "forward"), pairwise(bounds), strict=True):
        cpu_s[stage] = cpu_s.get(stage, 0.0) + end - start


@dataclass(frozen=True)
class AutoModelLoop:
    """Implements `Loop` as transformers' documentation does."""

    model: torch.nn.Module
    size: tuple[int, int]
    mean: torch.Tensor
    std: torch.Tensor
    cpu_s: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def load(folder: str) -> AutoModelLoop:
        """`folder`: a checkpoint that wants pictures of an exact size, such as `serving.inputs` makes."""
        geometry = json.loads((Path(folder) / "preprocessor_config.json").read_text())
        mean, std = (torch.tensor(geometry[key]).view(1, 3, 1, 1) * 255 for key in ("image_mean", "image_std"))
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        return AutoModelLoop(model, (geometry["size"]["width"], geometry["size"]["height"]), mean, std)

    def embed(self, pictures: Sequence[str]) -> np.ndarray:
        """As `Loop.embed`."""
        started = time.process_time()
        images = [Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB") for picture in pictures]
        decoded = time.process_time()
        pixels = np.stack([np.asarray(image.resize(self.size, Image.Resampling.BILINEAR)) for image in images])
        resized = time.process_time()
        vectors = self.forward(pixels)
        staged(self.cpu_s, [started, decoded, resized, time.process_time()])
        return vectors

    @torch.inference_mode()
    def forward(self, pixels: np.ndarray) -> np.ndarray:
        """uint8[n, height, width, 3] → float32[n, dimension]."""
        values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().sub_(self.mean).div_(self.std)
        vectors: np.ndarray = self.model(pixel_values=values.contiguous()).last_hidden_state.mean(dim=1).numpy()
        return vectors


@dataclass(frozen=True)
class Measured:
    """One batch size."""

    batch: int
    rate: float
    cpu_ms: dict[str, float]


def measure(loop: Loop, pictures: Sequence[str], batch: int, seconds: float) -> Measured:
    """Pictures per second, after one batch that does not count."""
    source = itertools.cycle(pictures)
    loop.embed(list(itertools.islice(source, batch)))
    loop.cpu_s.clear()
    started, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        done += len(loop.embed(list(itertools.islice(source, batch))))
    return Measured(batch, done / elapsed, {stage: used * 1e3 / done for stage, used in loop.cpu_s.items()})


def run(load: Callable[[str], Loop], description: str | None) -> None:
    """The program: measures the fastest batch and prints a line of JSON."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a local folder")
    parser.add_argument("pictures", type=Path, help="a file with a JSON list of JPEG files in base64")
    parser.add_argument("--seconds", type=float, default=10, help="(default: %(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="(default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    loop, pictures = load(arguments.model), json.loads(arguments.pictures.read_text())
    trials = (measure(loop, pictures, batch, TRIAL_S) for batch in arguments.batches)
    best = max(trials, key=lambda trial: trial.rate) if len(arguments.batches) > 1 else None
    found = measure(loop, pictures, best.batch if best else arguments.batches[0], arguments.seconds)
    print(json.dumps(vars(found)))


if __name__ == "__main__":
    run(AutoModelLoop.load, __doc__)
