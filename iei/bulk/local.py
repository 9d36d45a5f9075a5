"""The service of a worker with the model in this process: what a server with this model would answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from iei.bulk.fingerprint import plain, versions, weights_digest
from iei.bulk.options import BulkOptions
from iei.engine.inprocess import InProcessEngine
from iei.errors import InvalidField, InvalidInput, InvalidInputs
from iei.inputs.preparer import Preparer
from iei.machine import cores, is_cpu
from iei.models.catalog import read_catalog
from iei.models.spec import Modality, ModelSpec
from iei.requests import Embedding, ImageInput, TextInput
from iei.runtimes import loading
from iei.runtimes.api import Begun, Input, Model, Outputs, Overlapping, Parallel
from iei.service import WINDOW_BATCHES, EmbeddingService
from iei.settings import Settings
from iei.targets import check_dimensions, resolve_targets
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import METRICS
from iei.telemetry.record import RECORD, Record


class LocalModel:
    """Implements `Computer` with the first model of the settings, on their first device.

    Args:
        settings: as a server would have them. Limits that protect a server from its clients don't hold here: how
            many inputs wait, and for how long.
        options: what is wanted.

    Raises:
        StartupError: the model can't be loaded.
        InvalidField: it can't give what is wanted.
    """

    def __init__(self, settings: Settings, options: BulkOptions) -> None:
        unhurried = settings.requests.model_copy(update={"max_queue": _ANY, "request_timeout_s": _A_YEAR_S})
        self._options = options.request
        self._threads = settings.inputs.decode_threads or cores()
        self._is_exact = not settings.inputs.fast_decode
        catalog = read_catalog(settings.models)
        device = settings.engine.devices[0]
        load = settings.load
        if not load.max_batch and is_cpu(device):
            load = load.model_copy(update={"max_batch": BATCH_PER_CORE * (load.threads or cores())})
        request, *_ = catalog.load_requests(device, load)
        loaded = loading.load(request)
        spec = loaded.spec
        self.dimension, self.warnings, decided = _decided(spec, options, settings)
        if others := settings.engine.devices[1:]:
            self.warnings += (
                f"{', '.join(others)} stay idle: a job computes on one device. Start one for each, with --shards.",
            )
        self.modalities = spec.modalities
        self.in_work = WINDOW_BATCHES * spec.max_batch
        self.fingerprint = plain(
            {
                "model": spec.id,
                "revision": spec.revision,
                "weights": weights_digest(request),
                **decided,
                "precision": spec.dtype,
                "geometry": asdict(spec.image.geometry) if spec.image else None,
                "runtime": spec.runtime,
                "versions": versions(),
            }
        )
        self._model = _timed(loaded)
        self._record = Record()
        preparer = Preparer(settings.inputs, self._threads, settings.engine.max_encoded_bytes)
        self._service = EmbeddingService(
            InProcessEngine(self._model), catalog, preparer, unhurried, devices=1, counters=Counters(METRICS)
        )

    async def start(self) -> None:
        """Starts threads, on the event loop that will call `embed`."""
        await self._service.start()

    async def stop(self) -> None:
        """Ends them."""
        await self._service.stop()

    async def embed(self, data: bytes | str) -> Embedding:
        """As `Computer.embed`."""
        RECORD.set(self._record)  # of this task: all add to it
        source = TextInput(data) if isinstance(data, str) else ImageInput(data)
        try:
            (embedding,) = (await self._service.embed([source], self._options)).done
        except InvalidInputs as error:
            raise InvalidInput(str(error.errors[0])) from None
        except InvalidField as error:  # the model takes no such inputs
            raise InvalidInput(str(error)) from None
        return embedding if self._is_exact else replace(embedding, picture=None)

    @property
    def busy(self) -> Mapping[str, float]:
        """As `Computer.busy`."""
        stages = self._record.stages
        prepared = sum(stages[stage].seconds for stage in ("decode", "resize", "tokenize") if stage in stages)
        return {"decoding": prepared / self._threads, "model": self._model.busy.seconds}


BATCH_PER_CORE = 12
"""Inputs of a batch on a CPU: three times a server's, in which nobody waits for the others of a batch for long."""
_ANY = 2**31
_A_YEAR_S = 365 * 86_400.0


class _Busy:
    """The seconds in which anything is computed: those of batches that are computed at the same time count once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0
        """Until `_counted`."""
        self._counted = 0.0
        self._computed = 0
        """Batches that are."""

    @property
    def seconds(self) -> float:
        """Until now."""
        return self._change(0)

    def begin(self) -> None:
        self._change(1)

    def end(self) -> None:
        self._change(-1)

    def _change(self, computed: int) -> float:
        with self._lock:
            now = time.perf_counter()
            if self._computed:
                self._seconds += now - self._counted
            self._counted = now
            self._computed += computed
            return self._seconds

    @contextmanager
    def computing(self) -> Iterator[None]:
        self.begin()
        try:
            yield
        finally:
            self.end()


class _TimedModel:
    """A model that knows how long it has computed."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.busy = _Busy()

    @property
    def spec(self) -> ModelSpec:
        return self._model.spec

    def run(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        with self.busy.computing():
            return self._model.run(modality, batch, outputs)


class _TimedOverlapping(_TimedModel):
    """The same with one that is brought a batch while it computes another."""

    def __init__(self, model: Model, overlapping: Overlapping) -> None:
        super().__init__(model)
        self._overlapping = overlapping

    def begin(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> Begun:
        self.busy.begin()
        try:
            return _TimedBegun(self.busy, self._overlapping.begin(modality, batch, outputs))
        except BaseException:
            self.busy.end()
            raise


@dataclass(frozen=True, slots=True)
class _TimedBegun:
    busy: _Busy
    begun: Begun

    def done(self) -> bool:
        return self.begun.done()

    def finish(self) -> list[Outputs]:
        try:
            return self.begun.finish()
        finally:
            self.busy.end()


class _TimedParallel(_TimedModel):
    """The same with one that computes several at the same time."""

    def __init__(self, model: Model, parallel: Parallel) -> None:
        super().__init__(model)
        self._parallel = parallel

    def lanes(self, modality: Modality, array: Input) -> int:
        return self._parallel.lanes(modality, array)

    def run_on_lane(self, modality: Modality, batch: Sequence[Input], outputs: Collection[str]) -> list[Outputs]:
        with self.busy.computing():
            return self._parallel.run_on_lane(modality, batch, outputs)


def _timed(model: Model) -> _TimedModel:
    if isinstance(model, Overlapping):
        return _TimedOverlapping(model, model)
    return _TimedParallel(model, model) if isinstance(model, Parallel) else _TimedModel(model)


def _decided(spec: ModelSpec, options: BulkOptions, settings: Settings) -> tuple[int, tuple[str, ...], dict[str, Any]]:
    """The length of vectors, what to know about them, and how they come about.

    Raises:
        InvalidField: the model does not offer what is wanted.
    """
    modality = options.modality or spec.modalities[0]
    asked = ImageInput(b"") if modality == "image" else TextInput("")
    targets = resolve_targets(spec, [asked], options.request, settings.requests.normalize)
    (target,) = targets.values()
    (pooling,) = target.outputs
    warnings = check_dimensions(spec, targets.values(), options.request, settings.requests.dimensions)
    dimension = options.dimensions or target.tower.outputs[pooling]
    decided = {"pooling": pooling, "normalize": target.normalizes(pooling), "dimensions": dimension}
    return dimension, warnings, decided
