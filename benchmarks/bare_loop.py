"""The most that one process gets out of this machine without any server: the yardstick for IEI's overhead.

    python -m benchmarks.bare_loop MODEL [--seconds 10] [--batch N]

base64 → Pillow decode → resize → one batched forward → mean over tokens, again and again. No HTTP, no JSON, torch on
every core. The batch is the best of several unless given. `overlapped` decodes the next batch in a thread meanwhile.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pybase64
import torch
from PIL import Image
from transformers import AutoModel

from benchmarks.workload import pictures

BATCHES = (1, 2, 4, 8, 16, 32)
PROBE_S = 1.5


@dataclass(frozen=True)
class Loop:
    """A model, and how pictures become its input."""

    model: torch.nn.Module
    device: str
    size: tuple[int, int]
    mean: torch.Tensor
    std: torch.Tensor

    @staticmethod
    def load(folder: str, device: str) -> Loop:
        """`folder`: a checkpoint that wants pictures of an exact size, such as `workload.write_model` makes."""
        geometry = json.loads((Path(folder) / "preprocessor_config.json").read_text())
        mean, std = (
            torch.tensor(geometry[key], device=device).view(1, 3, 1, 1) * 255 for key in ("image_mean", "image_std")
        )
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().to(device)
        return Loop(model, device, (geometry["size"]["width"], geometry["size"]["height"]), mean, std)

    def decode(self, batch: Iterable[str]) -> np.ndarray:
        """The batch as uint8[n, height, width, 3]."""
        return np.stack([self.pixels(picture) for picture in batch])

    def pixels(self, picture: str) -> np.ndarray:
        """One picture in base64 as uint8[height, width, 3]."""
        with Image.open(io.BytesIO(pybase64.b64decode(picture, validate=True))) as image:
            return np.asarray(image.convert("RGB").resize(self.size, Image.Resampling.BILINEAR))

    @torch.inference_mode()
    def forward(self, pixels: np.ndarray) -> np.ndarray:
        """The mean over all tokens: float32[n, dimension]."""
        values = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float().sub_(self.mean).div_(self.std)
        tokens = self.model(pixel_values=values.contiguous()).last_hidden_state
        vectors: np.ndarray = tokens.mean(dim=1).cpu().numpy()
        return vectors


def plain(loop: Loop, batches: Iterator[list[str]]) -> Iterator[int]:
    """Decode, forward, decode, forward. Yields how many pictures are done after each batch."""
    for batch in batches:
        yield len(loop.forward(loop.decode(batch)))


def overlapped(loop: Loop, batches: Iterator[list[str]]) -> Iterator[int]:
    """One thread decodes the next batch while this one is in the forward: both release the GIL."""
    with ThreadPoolExecutor(1) as decoder:
        ahead = decoder.submit(loop.decode, next(batches))
        for batch in batches:
            pixels, ahead = ahead.result(), decoder.submit(loop.decode, batch)
            yield len(loop.forward(pixels))


VARIANTS: dict[str, Callable[[Loop, Iterator[list[str]]], Iterator[int]]] = {"plain": plain, "overlapped": overlapped}


def measure(variant: str, loop: Loop, batch: int, seconds: float) -> float:
    """Pictures per second, after one batch that does not count."""
    source = itertools.cycle(pictures())
    run = VARIANTS[variant](loop, iter(lambda: list(itertools.islice(source, batch)), None))
    next(run)
    started, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        done += next(run)
    return done / elapsed


def best_batch(loop: Loop) -> int:
    """The fastest of `BATCHES` in a short trial."""
    rates = {}
    for batch in BATCHES:
        rates[batch] = measure("plain", loop, batch, PROBE_S)
        print(f"bare loop, batch {batch}: {rates[batch]:.1f} pictures/s", file=sys.stderr, flush=True)
    return max(rates, key=lambda batch: rates[batch])


def main() -> None:
    """Measures both variants and prints a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a local folder")
    parser.add_argument("--seconds", type=float, default=10, help="for each variant (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=0, help="default: the fastest of a short trial")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    loop = Loop.load(arguments.model, arguments.device)
    batch = arguments.batch or best_batch(loop)
    rates = {variant: measure(variant, loop, batch, arguments.seconds) for variant in VARIANTS}
    print(json.dumps({"batch": batch, **rates}))


if __name__ == "__main__":
    main()
