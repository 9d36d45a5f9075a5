"""Runtimes whose answers are known, for tests of everything around a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

import numpy as np

from iei.models.spec import Geometry, ImageTower, Modality, ModelSpec
from iei.runtimes.api import Input, Outputs

DIM = 3
SPEC = ModelSpec(
    name="known",
    id="known",
    revision=None,
    model_type="vit",
    device="cpu",
    dtype="float32",
    runtime="test",
    parameters=0,
    max_batch=4,
    image=ImageTower(
        Geometry("exact", 8, 8, resample=2), outputs={"mean": DIM, "tokens": DIM}, tokens=4, patches=4, stride=4
    ),
)


class KnownRuntime:
    """The mean colour of each picture. What it ran is in `batches`; `before` may raise."""

    def __init__(self, before: Callable[[Sequence[Input]], None] = lambda batch: None) -> None:
        self.spec = SPEC
        self.max_batch = SPEC.max_batch
        self.batches: list[int] = []
        self.busy = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self._before = before

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        self.busy.set()
        self.go.wait()
        self.batches.append(len(batch))
        self._before(batch)
        return [{name: mean_colour(picture, name) for name in outputs} for picture in batch]


def mean_colour(picture: Input, output: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    mean = picture.reshape(-1, DIM).mean(0, dtype=np.float32)
    return mean if output == "mean" else np.tile(mean, (4, 1))


def picture(value: int) -> Input:
    return np.full((8, 8, 3), value, np.uint8)
