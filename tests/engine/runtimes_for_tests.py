"""A model whose answers are known, for tests of everything around a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from iei.encoded import Encoded
from iei.models.spec import Geometry, ImageTower, Modality, ModelSpec, output_shapes
from iei.runtimes.api import Input, Outputs
from tests.jpegs import decoded_by_pillow

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
assert SPEC.image
DECODING_SPEC = replace(SPEC, image=replace(SPEC.image, decodes=True))
"""Of a model that takes JPEGs, too."""


class KnownRuntime:
    """The mean colour of each picture, and of each JPEG before it is resized.

    The sizes of the batches that it ran are in `batches`. `before` is called with each batch, and may raise. Forwards
    set `busy` and wait for `go`, which is set at first.
    """

    def __init__(self, before: Callable[[Sequence[Input]], None] = lambda batch: None) -> None:
        self.spec: ModelSpec = SPEC
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


class OverlappingRuntime(KnownRuntime):
    """Implements `Overlapping`, too. Batches are computed when they are finished; `events` has what was done.

    None is done before, unless `all_done` is set.
    """

    def __init__(
        self,
        before: Callable[[Sequence[Input]], None] = lambda batch: None,
        at_begin: Callable[[Sequence[Input]], None] = lambda batch: None,
    ) -> None:
        super().__init__(before)
        self.events: list[str] = []
        self.all_done = False
        self._at_begin = at_begin

    def begin(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> KnownBegun:
        self.events.append(f"begin {_values(batch)}")
        self._at_begin(batch)
        return KnownBegun(self, modality, batch, outputs)

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        self.events.append(f"run {_values(batch)}")
        return super().run(modality, batch, outputs)


class ParallelRuntime(KnownRuntime):
    """Implements `Parallel`, too. A batch on a lane waits until its first picture's value is given to `release`.

    `release_all` lets all go on, also those to come. `events` has what was begun, and `computing` how many batches are.
    """

    def __init__(self, lanes: int = 2, before: Callable[[Sequence[Input]], None] = lambda batch: None) -> None:
        super().__init__(before)
        self.events: list[str] = []
        self.computing = 0
        self._lanes = lanes
        self._changed = threading.Condition()
        self._released: set[int] = set()
        self._all_are_released = False

    def release(self, *values: int) -> None:
        with self._changed:
            self._released.update(values)
            self._changed.notify_all()

    def release_all(self) -> None:
        with self._changed:
            self._all_are_released = True
            self._changed.notify_all()

    def lanes(self, modality: Modality, array: Input) -> int:
        return self._lanes

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        self.events.append(f"run {_values(batch)}")
        return super().run(modality, batch, outputs)

    def run_on_lane(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        value = int(batch[0][0, 0, 0])
        self.events.append(f"lane {_values(batch)}")
        with self._changed:
            self.computing += 1
            assert self._changed.wait_for(lambda: self._all_are_released or value in self._released, 60)
        try:
            return super().run(modality, batch, outputs)
        finally:
            with self._changed:
                self.computing -= 1


@dataclass
class KnownBegun:
    """Implements `Begun`."""

    runtime: OverlappingRuntime
    modality: Modality
    batch: Sequence[Input]
    outputs: Collection[str]

    def done(self) -> bool:
        return self.runtime.all_done

    def finish(self) -> list[Outputs]:
        self.runtime.events.append(f"finish {_values(self.batch)}")
        return KnownRuntime.run(self.runtime, self.modality, self.batch, self.outputs)


def _values(batch: Sequence[Input]) -> str:
    return ",".join(str(picture[0, 0, 0]) for picture in batch)


def mean_colour(picture: Input, output: str) -> npt.NDArray[np.float32]:
    """float32[3], or float32[4, 3] of `tokens`."""
    if picture.ndim == 1:
        (picture,) = decoded_by_pillow([Encoded.unpack(picture).file])
    mean: npt.NDArray[np.float32] = picture.reshape(-1, DIM).mean(0, dtype=np.float32)
    return mean if output == "mean" else np.tile(mean, (4, 1))


def picture(value: int) -> Input:
    """Pixels of one colour, uint8[8, 8, 3]."""
    return np.full((8, 8, 3), value, np.uint8)


def shapes(*outputs: str, shape: tuple[int, ...] = (8, 8, 3)) -> dict[str, tuple[int, ...]]:
    """The shapes of outputs of `SPEC` for pixels of `shape`."""
    assert SPEC.image
    return output_shapes(SPEC.image, outputs, SPEC.image.rows(shape))
