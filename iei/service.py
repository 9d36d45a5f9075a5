"""The one path of a request, whatever dialect it came in: admit → resolve → prepare → run → finish."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, NamedTuple, TypeVar

import anyio
import numpy as np

from iei.admission import Admission
from iei.encoded import is_encoded
from iei.engine.answers import Forward
from iei.engine.api import Engine, Result
from iei.errors import BackendFailed, EmptyInput, IEIError, InvalidField, InvalidInput, InvalidInputs, Overloaded
from iei.inputs.modality import typed, url_warnings
from iei.inputs.preparer import Preparer
from iei.models.catalog import Catalog
from iei.models.spec import Modality, ModelSpec, Rows, TextTower, output_shapes
from iei.requests import (
    Comparison,
    Embedding,
    Embeddings,
    ImageInput,
    Input,
    Options,
    PictureSize,
    Stream,
    TextInput,
    Timing,
    Token,
    Unreadable,
    Vectors,
)
from iei.scores import logits, probabilities
from iei.settings import RequestSettings
from iei.targets import Target, check_dimensions, default_norms, resolve_targets, text_tower
from iei.telemetry.counters import Counters
from iei.telemetry.record import Lap, current
from iei.telemetry.work import Work

T = TypeVar("T")
S = TypeVar("S")

WINDOW_BATCHES = 4
"""How many batches' worth of one request's inputs are in work at a time, for each engine.

Enough that no engine waits for this request. And few: decoders, arena and engine serve inputs of one priority first
come, first served, so a picture that comes after a thousand waits for a few batches of theirs, not for all.
"""

OF_ONE_INPUT = (EmptyInput, InvalidInput, BackendFailed)
"""Errors that concern one input of a request, and not the request as a whole."""


class EmbeddingService:
    """Computes the embeddings that requests ask for. One for each worker; every dialect calls it.

    Args:
        engine: runs the models.
        catalog: the models that may be asked for.
        preparer: decodes and tokenizes.
        settings: limits of a request, and what it gets if it does not say.
        devices: how many engines run side by side behind `engine`.
        counters: where inputs are counted.
    """

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        preparer: Preparer,
        settings: RequestSettings,
        devices: int,
        counters: Counters,
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._preparer = preparer
        self._settings = settings
        self._devices = devices
        self._counters = counters
        self._admission = Admission(settings)
        self._is_draining = False
        preparer.keep(engine.default)

    def check_room(self) -> None:
        """Raises Overloaded if a request of the current priority would be refused, however few inputs it had."""
        self._admission.check()

    async def start(self) -> None:
        """Opens what belongs to a worker: called once, on the event loop that serves requests."""
        await self._preparer.start()
        await self._engine.start()

    async def stop(self) -> None:
        """Closes what `start` opened."""
        await self._engine.stop()
        await self._preparer.stop()

    @property
    def ready(self) -> bool:
        """Whether inputs should be sent here: the engine is there, has its model, and answers; and this goes on."""
        return self._engine.ready and not self._is_draining

    def drain(self) -> None:
        """From now on this is not `ready`, so that inputs are sent elsewhere. Those that come are still computed."""
        self._is_draining = True

    @property
    def default(self) -> ModelSpec:
        """The model of requests that name none."""
        return self._engine.default

    @property
    def model_names(self) -> tuple[str, ...]:
        """What clients may call the models; the default one first."""
        return self._catalog.names

    def aliases(self, model: str) -> tuple[str, ...]:
        """What clients may call the model besides its served name `model`."""
        return self._catalog.aliases(model)

    @property
    def max_inputs(self) -> int:
        """Most inputs in one request."""
        return self._settings.max_inputs

    def resolve(self, model: str | None) -> str:
        """The served name of the model that a request means. Raises ModelNotFound."""
        return self._catalog.resolve(model).name

    async def describe(self, model: str | None = None) -> ModelSpec:
        """The model that `model` means to this server, loaded first if it must be.

        Raises:
            ModelNotFound: it is not served here.
            Overloaded: it is still being loaded at the request's deadline.
            Unhealthy: it can't be loaded, or the engine is gone.
        """
        return await self._engine.describe(self.resolve(model), deadline=self._deadline())

    def normalizes(self, spec: ModelSpec) -> dict[Modality, bool]:
        """Modality → whether `embed` gives vectors of length 1 where `Options.normalize` is None."""
        return default_norms(spec, self._settings.normalize)

    async def embed(
        self, inputs: Sequence[Input], options: Options, *, field: str = "inputs", names: Sequence[str] | None = None
    ) -> Embeddings:
        """All vectors of a request, in the order of its inputs.

        A bad input fails alone and before any batch; the error names every bad one by its index in `field`. If the
        request wants null for them (`Options.on_error`), the others are answered, even if there are none.

        Args:
            inputs: what to embed.
            options: what the request says about them.
            field: the dialect's name for the list of inputs.
            names: the dialect's name of each input, where they are not all in one list.

        Raises:
            EmptyInput, InvalidField: of the request as a whole.
            InvalidInputs: of its items.
            BackendFailed, ModelNotFound, Overloaded, Unhealthy: see iei.errors.
        """
        return await self._embed(inputs, options, field, names, lambda spec: options)

    @asynccontextmanager
    async def stream(
        self, inputs: Sequence[Input], options: Options, *, field: str = "inputs", names: Sequence[str] | None = None
    ) -> AsyncIterator[Stream]:
        """The vectors of a request, each as soon as it is there; a bad input costs its own vector only.

        What has been computed waits to be read, and the next inputs wait for that: a slow reader takes no memory. The
        work is given up where the block is left. Arguments and errors are those of `embed`.
        """
        send, receive = anyio.create_memory_object_stream[tuple[int, Embedding | IEIError]](0)

        async def one(index: int) -> None:
            await self._one(request, index)
            if outcome := request.taken(index):
                await send.send((index, outcome))

        async def work() -> None:
            with send:
                await self._work_on(request, one)

        async def items() -> AsyncIterator[tuple[int, Embedding | IEIError]]:
            async for each in receive:
                yield each
            await working
            if request.failure:
                raise request.failure
            current().is_computed = True

        wanted = replace(options, on_error="null")
        with send, receive:
            async with self._begun(inputs, field, names, wanted.model, lambda spec: wanted) as request:
                working = asyncio.create_task(work())
                try:
                    yield Stream(items(), request.deadline, request.warnings)
                finally:
                    working.cancel()
                    with anyio.CancelScope(shield=True):
                        await asyncio.wait([working])

    async def compare(
        self,
        queries: Sequence[Input],
        candidates: Sequence[Input],
        options: Options,
        *,
        trained: bool,
        field: str,
        names: Sequence[str],
    ) -> Comparison:
        """Compares each query with each candidate, in the space in which the model's vectors are to be compared.

        Args:
            queries: at least one.
            candidates: at least one.
            options: what the request wants; outputs, dimensions and norm are decided here.
            trained: whether the scores are wanted that the checkpoint was trained for, and not cosines alone.
            field: the dialect's name for all inputs together.
            names: the dialect's name of each query, and then of each candidate.

        Raises:
            InvalidField: `trained`, but the model does not score pictures against texts, or the inputs are not one
                kind against the other.
            IEIError: as `embed` does.
        """

        def comparable(spec: ModelSpec) -> Options:
            if trained and spec.contrast is None:
                raise InvalidField(
                    f"model {spec.name!r} does not score images against texts: that takes a checkpoint with a side "
                    "for each, trained together, such as a CLIP or SigLIP with its tokenizer.json",
                    "model",
                )
            if trained and _kinds(queries, spec) & _kinds(candidates, spec):
                raise InvalidField(f"model {spec.name!r} was trained to score images against texts, and nothing else")
            # Whatever IEI_POOLING says, two towers share the space of their own poolings only.
            outputs = ("pooler",) if spec.contrast else ("default",)
            return replace(options, outputs=outputs, normalize=True, on_error="fail")

        embeddings = await self._embed([*queries, *candidates], options, field, names, comparable)
        vectors = np.stack([item.vector for item in embeddings.done])
        cosines = vectors[: len(queries)] @ vectors[len(queries) :].T
        contrast = embeddings.spec.contrast
        return Comparison(
            embeddings,
            cosines,
            logits=logits(cosines, contrast) if contrast else None,
            probabilities=probabilities(cosines, contrast) if contrast else None,
        )

    async def _embed(
        self,
        inputs: Sequence[Input],
        options: Options,
        field: str,
        names: Sequence[str] | None,
        decided: Callable[[ModelSpec], Options],
    ) -> Embeddings:
        """As `embed`, with options that are `decided` when the model is known; all but the model may change."""
        async with self._begun(inputs, field, names, options.model, decided) as request:
            await self._work_on(request, partial(self._one, request))
        embeddings = request.answer()
        record = current()
        record.is_computed = True
        record.reach()
        return embeddings

    @asynccontextmanager
    async def _begun(
        self,
        inputs: Sequence[Input],
        field: str,
        names: Sequence[str] | None,
        model: str | None,
        decided: Callable[[ModelSpec], Options],
    ) -> AsyncIterator[_Request]:
        """A request that has been admitted and checked against its model; it counts as in work while the block runs."""
        deadline = self._deadline()
        record = current()
        with self._admission.admitted(len(inputs), field):
            record.reach("parse")
            record.model = self.resolve(model)
            with Work(self._counters, record.model, record.priority, len(inputs)) as work:
                spec = await self._engine.describe(record.model, deadline=deadline)
                options = decided(spec)
                items = [typed(item, spec, self._settings.url_texts) for item in inputs]
                record.inputs = Counter(_modality(item) for item in items if not isinstance(item, Unreadable))
                targets = resolve_targets(spec, items, options, self._settings.normalize)
                warnings = check_dimensions(spec, targets.values(), options, self._settings.dimensions)
                warnings += url_warnings(inputs, spec, self._settings.url_texts)
                yield _Request(spec, items, field, names, targets, options, deadline, warnings, work)

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        add_special_tokens: bool,
        prompt_name: str | None,
        field: str = "inputs",
    ) -> list[list[Token]]:
        """The tokens of each text, by the model's tokenizer.

        Raises:
            EmptyInput, InvalidField: of the request as a whole.
            InvalidInputs: of its items.
        """

        def one(text: str, tower: TextTower) -> Awaitable[list[Token]]:
            return self._preparer.tokenize(text, tower, add_special_tokens=add_special_tokens, prompt_name=prompt_name)

        return await self._each(texts, one, model, field)

    async def detokenize(
        self, ids: Sequence[Sequence[int]], *, model: str | None = None, skip_special_tokens: bool, field: str = "ids"
    ) -> list[str]:
        """The text of each list of token ids, by the model's tokenizer. Raises as `tokenize` does."""

        def one(item: Sequence[int], tower: TextTower) -> Awaitable[str]:
            return self._preparer.detokenize(item, tower, skip_special_tokens=skip_special_tokens)

        return await self._each(ids, one, model, field)

    async def _each(
        self, items: Sequence[S], work: Callable[[S, TextTower], Awaitable[T]], model: str | None, field: str
    ) -> list[T]:
        """`work` on each of `items`, with the model's text side."""
        deadline = self._deadline()
        results: list[T] = []
        errors: dict[int, IEIError] = {}
        with self._admission.admitted(len(items), field):
            spec = await self._engine.describe(self.resolve(model), deadline=deadline)
            tower = text_tower(spec)
            for index, item in enumerate(items):
                try:
                    results.append(await work(item, tower))
                except OF_ONE_INPUT as error:
                    errors[index] = error
        if errors:
            raise _of_inputs(errors, field)
        return results

    async def _work_on(self, request: _Request, one: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        """All inputs through prepare → run → finish, a window of them at a time: `one` is called with each index."""
        if len(request.items) == 1:  # as of most requests, which need no task
            return await one(0)
        batches = WINDOW_BATCHES * request.spec.max_batch * self._devices
        free = asyncio.Semaphore(min(self._settings.concurrency_level, batches))
        async with asyncio.TaskGroup() as tasks:
            for index in request.in_turn():
                await free.acquire()
                tasks.create_task(one(index)).add_done_callback(lambda _: free.release())

    async def _one(self, request: _Request, index: int) -> None:
        started = time.perf_counter()
        try:
            if request.failure:
                return
            if time.monotonic() > request.deadline:
                raise Overloaded("there was no time left to come to this input (IEI_REQUEST_TIMEOUT_S)")
            item = request.items[index]
            if isinstance(item, Unreadable):
                raise item.error
            target = request.target(item)
            array, picture, _ = await self._preparer.prepare(item, request.spec, request.options)
            rows = target.tower.rows(array.shape)
            shapes = output_shapes(target.tower, target.outputs, rows)
            request.count_values(shapes, self._settings.max_output_values)
            prepared = time.perf_counter()
            if request.is_refused:
                return  # more bad items are looked for, but nothing is computed
            run = partial(self._engine.run, request.spec, target.modality, deadline=request.deadline)
            try:
                result = await run(array, shapes)
            except BackendFailed:
                if request.spec.image is None or not is_encoded(target.modality, array):
                    raise
                # The worker's decoder takes more than the device's, or says what is wrong with the file.
                array = await self._preparer.decode_after_all(array, request.spec.image)
                result = await run(array, shapes)
        except OF_ONE_INPUT as error:
            request.errors[index] = error
        except IEIError as error:
            request.failure = request.failure or error
        else:
            computed = time.perf_counter()
            taken = computed - result.forward.inference_s
            record = current()
            record.add(Lap("queue", prepared, taken))
            record.add(Lap("forward", taken, computed))
            record.largest_batch = max(record.largest_batch, result.forward.batch_size)
            record.engine_pid = result.forward.engine_pid
            request.work.computed(target.modality)
            embedding = finish(result, target, rows, request.options.dimensions, picture)
            request.done[index] = _Done(embedding, prepared - started, result.forward)

    def _deadline(self) -> float:
        return time.monotonic() + self._settings.request_timeout_s


class _Done(NamedTuple):
    """An input that has been computed, and what that took."""

    embedding: Embedding
    prepare_s: float
    forward: Forward


class _Request:
    """A request in work: what is known of each of its inputs so far."""

    def __init__(
        self,
        spec: ModelSpec,
        items: Sequence[ImageInput | TextInput | Unreadable],
        field: str,
        names: Sequence[str] | None,
        targets: Mapping[type, Target],
        options: Options,
        deadline: float,
        warnings: tuple[str, ...],
        work: Work,
    ) -> None:
        self.spec, self.items, self.options, self.deadline = spec, items, options, deadline
        self.warnings = warnings
        self._field, self._names = field, names
        self.work = work
        self._targets = targets
        self.errors: dict[int, IEIError] = {}
        """Of single inputs: all are looked for, so that all are named."""
        self.failure: IEIError | None = None
        """Of the request as a whole: nothing more need be done."""
        self.done: dict[int, _Done] = {}
        self._values = 0

    @property
    def is_refused(self) -> bool:
        """Whether this request will be answered with an error."""
        return bool(self.failure or (self.errors and self.options.on_error == "fail"))

    def target(self, item: ImageInput | TextInput) -> Target:
        """What is to become of an input."""
        return self._targets[type(item)]

    def in_turn(self) -> list[int]:
        """Indices in the order in which the inputs are worked on.

        Pictures keep their order. Texts go by length: the padding that a batch needs is computed, too.
        """
        return sorted(range(len(self.items)), key=lambda index: _length(self.items[index]))

    def count_values(self, shapes: Mapping[str, tuple[int, ...]], limit: int) -> None:
        """Adds an input's share of the answer. A picture of a hundred bytes has hundreds of rows of patches.

        Raises:
            InvalidField: the answer would have more than `limit` numbers.
        """
        self._values += sum(prod(shape) for shape in shapes.values())
        if self._values > limit:
            raise InvalidField(
                f"the answer would have more than {limit} numbers (IEI_MAX_OUTPUT_VALUES): send fewer inputs"
            )

    def taken(self, index: int) -> Embedding | IEIError | None:
        """What became of an input, which is then forgotten; None if the request failed before it was its turn."""
        if error := self.errors.pop(index, None):
            return _of_inputs({index: error}, self._field, self._names)
        done = self.done.pop(index, None)
        return done and done.embedding

    def answer(self) -> Embeddings:
        """Raises what kept this request from being answered: errors of items first, they are the most particular."""
        if self.errors and self.options.on_error == "fail":
            raise _of_inputs(self.errors, self._field, self._names)
        if self.failure:
            raise self.failure
        done = [self.done.get(index) for index in range(len(self.items))]
        return Embeddings(
            self.spec,
            [each and each.embedding for each in done],
            _timings([each for each in done if each]),
            self.warnings,
            {index: _of_inputs({index: self.errors[index]}, self._field, self._names) for index in sorted(self.errors)},
        )


def _timings(done: Sequence[_Done]) -> dict[Timing, float]:
    """Means over the inputs that were computed; empty if none was."""
    if not done:
        return {}
    return {
        "preprocess": sum(each.prepare_s for each in done) / len(done),
        "queue": sum(each.forward.queue_s for each in done) / len(done),
        "inference": sum(each.forward.inference_s for each in done) / len(done),
    }


def finish(
    result: Result, target: Target, rows: Rows, dimensions: int | None, picture: PictureSize | None
) -> Embedding:
    """What the engine computed, cut to the leading `dimensions` and normalised as the target says."""
    vectors = {name: _finished(result.outputs[name], dimensions, target.normalizes(name)) for name in target.outputs}
    return Embedding(vectors, rows.tokens if target.modality == "text" else rows.patches, picture)


def _finished(vectors: Vectors, dimensions: int | None, normalize: bool) -> Vectors:
    """Along the last axis."""
    if dimensions is not None:
        vectors = np.ascontiguousarray(vectors[..., :dimensions])
    if normalize:
        norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
        vectors = vectors / np.maximum(norms, np.float32(1e-12))
    return vectors


def _kinds(items: Iterable[Input], spec: ModelSpec) -> set[type]:
    return {type(typed(item, spec)) for item in items} - {Unreadable}


def _modality(item: ImageInput | TextInput) -> Modality:
    return "text" if isinstance(item, TextInput) else "image"


def _length(item: ImageInput | TextInput | Unreadable) -> int:
    return len(item.source) if isinstance(item, TextInput) else 0


def _of_inputs(errors: Mapping[int, IEIError], field: str, names: Sequence[str] | None = None) -> InvalidInputs:
    """One error for a request: what is wrong with its inputs, or else on which of them the model failed."""
    bad = {index: error for index, error in errors.items() if not isinstance(error, BackendFailed)}
    return InvalidInputs(bad or errors, field, names)
