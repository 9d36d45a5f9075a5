"""The one thing that every dialect calls: inputs and options in, vectors out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from iei.engine.api import Engine, Result
from iei.errors import BackendFailed, EmptyInput, IEIError, InvalidField, InvalidInput, InvalidInputs, Overloaded
from iei.inputs.addresses import UrlPolicy
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits, decoded
from iei.inputs.fetch import Fetcher
from iei.inputs.geometry import to_multiple, to_pixels
from iei.inputs.sources import encoded_bytes, kind_of
from iei.inputs.tokens import encode, keep_tokenizer
from iei.models.catalog import Catalog
from iei.models.spec import POOLED, ImageTower, Modality, ModelSpec, TextTower, why_not
from iei.settings import Settings

S = TypeVar("S", bound=Sized)
T = TypeVar("T")
Vectors = npt.NDArray[np.float32]
Prepared = npt.NDArray[np.generic]

WINDOW_BATCHES = 4
"""How many batches' worth of one request's inputs are in work at a time, for each engine.

Enough that no engine waits for this request. And few: the lines of the decoders, of the arena and of the engine are
first come, first served, so a picture that comes after a thousand waits for a few batches of theirs, not for all.
"""


@dataclass(frozen=True, slots=True)
class ImageInput:
    source: str | bytes
    """Base64, a data URI or a URL as text; or the encoded file itself."""


@dataclass(frozen=True, slots=True)
class TextInput:
    source: str | tuple[int, ...]
    """Text, or the ids of its tokens."""


Input = ImageInput | TextInput


@dataclass(frozen=True, slots=True)
class Options:
    """What a request wants, whatever dialect it came in."""

    model: str | None = None
    outputs: tuple[str, ...] = ("default",)
    """Names of OUTPUTS, or `default`: the pooling that the server, or else the model, is set to."""
    normalize: bool | None = None
    """Divide vectors by their L2 norm. None: as the server is set, or else as a text model's own pipeline does; what
    has a vector for each token or patch stays as it is."""
    dimensions: int | None = None
    """Keep this many leading values of each vector (before it is normalised)."""
    resize_to_multiple: bool = False
    """Resize pictures up to multiples of the patch size, instead of to the model's size."""
    truncate: bool | None = None
    """Cut over-long texts instead of refusing them. None: as the dialect's peers do, which is to refuse."""
    truncation_direction: Literal["left", "right"] = "right"
    prompt_name: str | None = None
    """One of the text model's prompts, put before each text."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """What one input became: output name → float32[dim] or float32[rows, dim], C-contiguous."""

    outputs: Mapping[str, Vectors]
    tokens: int
    """Tokens of a text, special ones included; patches of a picture."""

    @property
    def vector(self) -> Vectors:
        """The only output, where one was asked for."""
        (vector,) = self.outputs.values()
        return vector


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The answer to a request, in the order of its inputs."""

    spec: ModelSpec
    items: list[Embedding]
    timings: dict[Literal["preprocess", "queue", "inference"], float] = field(default_factory=dict)
    """Seconds, the mean over the inputs."""


class Embedder:
    """Admits requests, fans their inputs out over the decode threads and the engine, and gathers the vectors."""

    def __init__(self, settings: Settings, catalog: Catalog, engine: Engine) -> None:
        self.settings = settings
        self.catalog = catalog
        self.engine = engine
        self._urls = UrlPolicy.parse(settings.url_inputs)
        self._limits = DecodeLimits(
            max_pixels=settings.max_image_pixels,
            budget=PixelBudget(settings.max_decoding_pixels),
            fast=settings.fast_decode,
        )
        if engine.default.text:
            keep_tokenizer(engine.default.text)  # in memory once, for all the workers that are forked from here
        self._in_work = 0

    async def start(self) -> None:
        # Threads of its own, so that there are never more: one that decodes for a client who has left is still taken.
        self._threads = ThreadPoolExecutor(self.settings.decoders, thread_name_prefix="decoder")
        self._fetcher = Fetcher(self._urls, self.settings.max_image_bytes, self.settings.url_timeout_s)
        await self.engine.start()

    async def stop(self) -> None:
        await self.engine.stop()
        await self._fetcher.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def describe(self, model: str | None = None) -> ModelSpec:
        """The model that `model` means to this server."""
        return await self.engine.describe(self.catalog.resolve(model), deadline=self._deadline())

    async def embed(self, inputs: Sequence[Input], options: Options, *, field: str = "inputs") -> Embeddings:
        """All vectors of a request.

        A bad input fails alone and before any batch; the error names every bad one by its index in `field`.

        Raises:
            EmptyInput, InvalidField: of the request as a whole.
            InvalidInputs: of its items.
            BackendFailed, ModelNotFound, Overloaded, Unhealthy: see iei.errors.
        """
        self._check_count(len(inputs), field)
        with self._admitted(len(inputs)):
            spec = await self.describe(options.model)
            request = _Request(self, spec, options, self._deadline())
            await request.run(inputs)
        return request.answer(field)

    async def of_texts(self, items: Sequence[S], work: Callable[[S, TextTower], T], *, field: str) -> list[T]:
        """`work`, of the tokenizer alone, on each of `items`, for the default model.

        Raises:
            EmptyInput, InvalidField: of the request as a whole.
            InvalidInputs: of its items.
        """
        self._check_count(len(items), field)

        def worked(tower: TextTower) -> list[T]:
            results: list[T] = []
            errors: dict[int, IEIError] = {}
            for index, item in enumerate(items):
                try:
                    self._check_length(item)
                    results.append(work(item, tower))
                except OF_ONE_INPUT as error:
                    errors[index] = error
            if errors:
                raise _of_inputs(errors, field)
            return results

        with self._admitted(len(items)):
            tower = _tower(await self.describe(), "text")
            assert isinstance(tower, TextTower)
            return await self._in_thread(worked, tower)

    def outputs_of(self, spec: ModelSpec, modality: Modality, options: Options) -> tuple[str, ...]:
        """The outputs that `options` mean for inputs of this kind.

        Raises:
            InvalidField: the model does not have them.
        """
        tower = _tower(spec, modality)
        if options.resize_to_multiple and isinstance(tower, ImageTower) and not tower.any_size:
            raise InvalidField(f"model {spec.name!r} takes pictures of one size only: unset IEI_PREDICT_RESIZE")
        chosen = tuple(tower.pooling if name == "default" else name for name in options.outputs)
        for name in chosen:
            if name not in tower.outputs:
                offered = ", ".join(output for output in tower.outputs if output in POOLED)
                raise InvalidField(f"{name!r} is not offered by {spec.name!r}: {why_not(name)}; offered: {offered}")
            if options.dimensions is not None and not 1 <= options.dimensions <= tower.outputs[name]:
                raise InvalidField(
                    f"dimensions must be from 1 to {tower.outputs[name]} for this model, not {options.dimensions}",
                    "dimensions",
                )
        return chosen

    async def prepare(self, item: Input, spec: ModelSpec, options: Options) -> Prepared:
        """What the engine takes: pixels uint8[H, W, 3] (float32 where the geometry says so), or token ids int32[L]."""
        if isinstance(item, TextInput):
            assert spec.text is not None
            self._check_length(item.source)
            encoding = partial(
                encode,
                item.source,
                spec.text,
                truncate=bool(options.truncate),
                direction=options.truncation_direction,
                prompt_name=options.prompt_name,
            )
            return await self._in_thread(encoding)
        assert spec.image is not None
        if isinstance(item.source, str) and kind_of(item.source) == "url":
            async with self._fetcher.fetched(item.source) as data:
                return await self._in_thread(self._decode, data, spec.image, options)
        return await self._in_thread(self._decode, item.source, spec.image, options)

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _decode(self, source: str | bytes, tower: ImageTower, options: Options) -> Prepared:
        data = encoded_bytes(source, self.settings.max_image_bytes)
        if options.resize_to_multiple:
            with decoded(data, self._limits) as image:
                return to_multiple(image, tower.geometry, tower.stride, self.settings.max_patches)
        with decoded(data, self._limits, target=tower.geometry.size) as image:
            return to_pixels(image, tower.geometry, fast=self._limits.fast)

    def _check_count(self, count: int, field: str) -> None:
        if not count:
            raise EmptyInput(f"{field} is empty: send at least one item", field)
        if count > self.settings.max_inputs:
            raise InvalidField(
                f"{field} has {count} items, over the limit of {self.settings.max_inputs} (IEI_MAX_INPUTS)", field
            )

    def _check_length(self, text: Sized) -> None:
        """Tokenizing takes a hundred times a text's size, however few of its tokens are kept."""
        if len(text) > self.settings.max_text_length:
            raise InvalidInput(
                f"has a length of {len(text)}, over the limit of {self.settings.max_text_length} (IEI_MAX_TEXT_LENGTH)"
            )

    @contextmanager
    def _admitted(self, count: int) -> Iterator[None]:
        """Counts a request's inputs while they are in work; refuses at once what would have to wait too long."""
        if self._in_work and self._in_work + count > self.settings.max_queue:
            raise Overloaded(f"{self._in_work} inputs are in work already (IEI_MAX_QUEUE): try again later")
        self._in_work += count
        try:
            yield
        finally:
            self._in_work -= count

    def _deadline(self) -> float:
        return time.monotonic() + self.settings.request_timeout_s


class _Request:
    """One request on its way: what is known of each of its inputs so far."""

    def __init__(self, embedder: Embedder, spec: ModelSpec, options: Options, deadline: float) -> None:
        self.embedder, self.spec, self.options, self.deadline = embedder, spec, options, deadline
        self.errors: dict[int, IEIError] = {}
        """Of single inputs: all are looked for, so that all are named."""
        self.failure: IEIError | None = None
        """Of the request as a whole: nothing more need be done."""
        self._answers: dict[int, tuple[Result, Embedding]] = {}
        self._preprocess_s: list[float] = []
        self._values = 0

    async def run(self, inputs: Sequence[Input]) -> None:
        modalities: list[Modality] = ["text" if isinstance(item, TextInput) else "image" for item in inputs]
        outputs = {
            modality: self.embedder.outputs_of(self.spec, modality, self.options) for modality in set(modalities)
        }
        free = asyncio.Semaphore(self._window())
        # Texts of similar length go one after the other: what is padded in a batch is computed, too.
        in_turn = sorted(range(len(inputs)), key=lambda index: _length(inputs[index]))
        async with asyncio.TaskGroup() as tasks:
            for index in in_turn:
                await free.acquire()
                modality = modalities[index]
                task = tasks.create_task(self._one(index, inputs[index], modality, outputs[modality]))
                task.add_done_callback(lambda _: free.release())

    def _window(self) -> int:
        settings = self.embedder.settings
        return min(settings.concurrency_level, WINDOW_BATCHES * self.spec.max_batch * len(settings.devices))

    async def _one(self, index: int, item: Input, modality: Modality, outputs: tuple[str, ...]) -> None:
        started = time.perf_counter()
        try:
            if self.failure:
                return
            if time.monotonic() > self.deadline:
                raise Overloaded("there was no time left to come to this input (IEI_REQUEST_TIMEOUT_S)")
            array = await self.embedder.prepare(item, self.spec, self.options)
            self._preprocess_s.append(time.perf_counter() - started)
            self._count_values(modality, array, outputs)
            if self.errors or self.failure:
                return  # the request will be refused: look for more bad items, but compute nothing
            result = await self.embedder.engine.run(self.spec, modality, array, outputs, deadline=self.deadline)
        except OF_ONE_INPUT as error:
            self.errors[index] = error
        except IEIError as error:
            self.failure = self.failure or error
        else:
            self._answers[index] = (result, self._finished(result, modality, array, outputs))

    def _count_values(self, modality: Modality, array: Prepared, outputs: Sequence[str]) -> None:
        """A picture of a hundred bytes has hundreds of rows of patches: the answer is bounded, not only the request."""
        tower = _tower(self.spec, modality)
        self._values += sum(tower.rows(name, array.shape) * tower.outputs[name] for name in outputs)
        limit = self.embedder.settings.max_output_values
        if self._values > limit:
            raise InvalidField(
                f"the answer would have more than {limit} numbers (IEI_MAX_OUTPUT_VALUES): send fewer inputs"
            )

    def _finished(self, result: Result, modality: Modality, array: Prepared, outputs: Sequence[str]) -> Embedding:
        tower = self.spec.tower_for(modality)
        assert tower is not None
        tokens = tower.rows("tokens" if modality == "text" else "patches", array.shape)
        vectors = {
            name: finish(result.outputs[name], self.options.dimensions, self._normalizes(tower, name))
            for name in outputs
        }
        return Embedding(vectors, tokens)

    def _normalizes(self, tower: ImageTower | TextTower, output: str) -> bool:
        """As the request says; or else, of vectors (not of rows of tokens), as the server and the model are set."""
        settings = self.embedder.settings
        if self.options.normalize is not None or output not in POOLED:
            return bool(self.options.normalize)
        return settings.normalize if settings.is_set("normalize") else isinstance(tower, TextTower) and tower.normalize

    def answer(self, field: str) -> Embeddings:
        """Raises what kept it from being one, most particular first."""
        if self.errors:
            raise _of_inputs(self.errors, field)
        if self.failure:
            raise self.failure
        in_order = [self._answers[index] for index in sorted(self._answers)]
        return Embeddings(
            self.spec,
            [embedding for _, embedding in in_order],
            {
                "preprocess": fmean(self._preprocess_s),
                "queue": fmean(result.queue_s for result, _ in in_order),
                "inference": fmean(result.inference_s for result, _ in in_order),
            },
        )


def _length(item: Input) -> int:
    """What inputs are sorted by before they are worked on. Pictures keep their order."""
    return len(item.source) if isinstance(item, TextInput) else 0


def _tower(spec: ModelSpec, modality: Modality) -> ImageTower | TextTower:
    tower = spec.tower_for(modality)
    if tower is None:
        raise InvalidField(f"model {spec.name!r} takes no {modality}s")
    return tower


OF_ONE_INPUT = (EmptyInput, InvalidInput, BackendFailed)


def _of_inputs(errors: Mapping[int, IEIError], field: str) -> InvalidInputs:
    """One error for a request: what is wrong with its inputs, or else on which of them the model failed."""
    bad = {index: error for index, error in errors.items() if not isinstance(error, BackendFailed)}
    return InvalidInputs(bad or errors, field)


def finish(vectors: Vectors, dimensions: int | None, normalize: bool) -> Vectors:
    """Cuts vectors to their first `dimensions` values, then normalises them, along the last axis."""
    if dimensions is not None:
        vectors = np.ascontiguousarray(vectors[..., :dimensions])
    if normalize:
        norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
        vectors = vectors / np.maximum(norms, np.float32(1e-12))
    return vectors
