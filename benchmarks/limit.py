"""What IEI's own parts cost without a server: the most that any server made of them could serve on this machine.

    python -m benchmarks.limit MODEL PICTURES [--seconds 10] [--batches 1 2 4 8]

As `benchmarks.bare_loop`, with IEI's decoding, resizing and runtime, as `IEI_*` set them. The limit, in pictures per
second, is the number of cores divided by the seconds of CPU that a picture takes in all stages.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from benchmarks.bare_loop import run, staged
from benchmarks.decoding import LIMITS
from iei.inputs.decode import configure_pillow, decoded
from iei.inputs.geometry import to_pixels
from iei.models.catalog import CatalogEntry, LoadRequest
from iei.models.spec import Geometry
from iei.runtimes.api import Model
from iei.runtimes.loading import load
from iei.settings import read_settings


@dataclass(frozen=True)
class OurLoop:
    """Implements `benchmarks.bare_loop.Loop`."""

    model: Model
    geometry: Geometry
    cpu_s: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def load(folder: str) -> OurLoop:
        """`folder`: the checkpoint's."""
        configure_pillow(LIMITS.max_pixels)
        model = load(LoadRequest(CatalogEntry("model", folder), "cpu", read_settings().load))
        assert model.spec.image
        return OurLoop(model, model.spec.image.geometry)

    def embed(self, pictures: Sequence[str]) -> np.ndarray:
        """As `Loop.embed`."""
        started = time.process_time()
        with ExitStack() as opened:
            images = [opened.enter_context(decoded(base64.b64decode(picture), LIMITS)) for picture in pictures]
            ready = time.process_time()
            pixels = [to_pixels(image, self.geometry) for image in images]
            resized = time.process_time()
        vectors = np.stack([row["mean"] for row in self.model.run("image", pixels, ["mean"])])
        staged(self.cpu_s, [started, ready, resized, time.process_time()])
        return vectors


if __name__ == "__main__":
    run(OurLoop.load, __doc__)
