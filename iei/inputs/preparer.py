"""Prepares inputs for a model: downloads, decodes and resizes images and tokenizes texts, within limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Sized
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from iei.encoded import Encoded
from iei.errors import InvalidInput
from iei.inputs.addresses import UrlPolicy
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits, configure_pillow, decoded, redecoded, undecoded
from iei.inputs.fetch import Fetcher
from iei.inputs.geometry import to_multiple, to_pixels
from iei.inputs.sources import encoded_bytes, kind_of
from iei.inputs.threads import DecodeThreads
from iei.inputs.tokens import configure_tokenizers, decode, encode, keep_tokenizer, tokenize
from iei.models.spec import ImageTower, ModelSpec, TextTower
from iei.priority import BULK_SHARE, PRIORITY, Priority
from iei.requests import ImageInput, Options, PictureSize, TextInput, Token
from iei.settings import InputSettings
from iei.telemetry.record import Lap, current


class Prepared(NamedTuple):
    """An input, ready for the engine."""

    array: npt.NDArray[np.generic]
    """Pixels uint8[H, W, 3] (float32 where the geometry says so), a JPEG (`iei.encoded`), or token ids int32[L]."""
    picture: PictureSize | None = None
    """Size of the picture, upright. None of a text."""
    laps: tuple[Lap, ...] = ()
    """What its preparation took, in the thread that did it."""


class _Started(NamedTuple):
    """Resources that belong to one event loop."""

    threads: DecodeThreads
    fetcher: Fetcher


class Preparer:
    """Prepares the inputs of all requests of a worker, in threads of its own.

    Made before the workers are forked; `start` is called in each of them.

    Args:
        settings: the limits.
        threads: how many inputs are decoded at a time.
        max_encoded_bytes: of a JPEG that an engine is to decode: it takes its share of an arena, and may have to wait
            for that. 0: no engine is to decode any.

    Raises:
        StartupError: `IEI_URL_INPUTS` is invalid.
    """

    def __init__(self, settings: InputSettings, threads: int, max_encoded_bytes: int = 0) -> None:
        self._settings = settings
        self._thread_count = threads
        self._urls = UrlPolicy.parse(settings.url_inputs)
        budget = PixelBudget(settings.max_decoding_pixels)
        limits = DecodeLimits(
            max_pixels=settings.max_image_pixels,
            max_side=settings.max_image_side,
            budget=budget,
            fast=settings.fast_decode,
            max_encoded_bytes=max_encoded_bytes,
        )
        share = PixelBudget(int(BULK_SHARE * settings.max_decoding_pixels), of=budget)
        self._limits = {Priority.INTERACTIVE: limits, Priority.BULK: replace(limits, budget=share)}
        self._started: _Started | None = None
        configure_pillow(settings.max_image_pixels)
        configure_tokenizers()

    async def start(self) -> None:
        """Creates the threads and the connection pool, on the event loop that will use them."""
        threads = DecodeThreads(self._thread_count)
        fetcher = Fetcher(self._urls, self._settings.max_image_bytes, self._settings.url_timeout_s)
        self._started = _Started(threads, fetcher)

    async def stop(self) -> None:
        """Closes what `start` created. Does not wait for running threads."""
        if self._started:
            await self._started.fetcher.aclose()
            self._started.threads.stop()
        self._started = None

    def keep(self, spec: ModelSpec) -> None:
        """Loads the model's tokenizer now, so that workers forked later share its memory."""
        if spec.text:
            keep_tokenizer(spec.text)

    async def prepare(self, item: ImageInput | TextInput, spec: ModelSpec, options: Options) -> Prepared:
        """`item` as the model's input.

        Raises:
            EmptyInput: the item is empty.
            InvalidInput: it can't be fetched, decoded or tokenized, or is over a limit.
            InvalidField: the model has no such prompt.
        """
        if isinstance(item, TextInput):
            assert spec.text is not None
            return await self._timed(self._encode, item, spec.text, options)
        assert spec.image is not None
        decode = partial(self._decode, tower=spec.image, options=options, limits=self._limits[PRIORITY.get()])
        if isinstance(item.source, str) and kind_of(item.source) == "url":
            began = time.perf_counter()
            async with self._running.fetcher.fetched(item.source) as data:
                current().add(Lap("fetch", began, time.perf_counter()))
                return await self._timed(decode, data)
        return await self._timed(decode, item.source)

    async def decode_after_all(self, array: npt.NDArray[np.generic], tower: ImageTower) -> npt.NDArray[np.generic]:
        """Pixels of a JPEG (`iei.encoded`) that `prepare` had left to the engine.

        Raises:
            InvalidInput: it can't be decoded.
        """

        def decode(limits: DecodeLimits) -> npt.NDArray[np.generic]:
            with redecoded(Encoded.unpack(array), limits, target=tower.geometry.resized) as image:
                return to_pixels(image, tower.geometry, fast=limits.fast)

        return await self._running.threads.run(decode, self._limits[PRIORITY.get()])

    async def tokenize(
        self, text: str, tower: TextTower, *, add_special_tokens: bool, prompt_name: str | None
    ) -> list[Token]:
        """The tokens of a text of any length. Raises as `iei.inputs.tokens.tokenize` does, and for the length limit."""
        self._check_length(text)
        work = partial(tokenize, text, tower, add_special_tokens=add_special_tokens, prompt_name=prompt_name)
        return await self._running.threads.run(work)

    async def detokenize(self, ids: Sequence[int], tower: TextTower, *, skip_special_tokens: bool) -> str:
        """Token ids → text. Raises as `iei.inputs.tokens.decode` does, and for the length limit."""
        self._check_length(ids)
        return await self._running.threads.run(partial(decode, ids, tower, skip_special_tokens=skip_special_tokens))

    @property
    def _running(self) -> _Started:
        if self._started is None:
            raise RuntimeError("the preparer has not been started")
        return self._started

    async def _timed(self, work: Callable[..., Prepared], *arguments: Any) -> Prepared:
        """`work` in a thread, with what it took in the record of the request."""
        asked = time.perf_counter()
        prepared = await self._running.threads.run(work, *arguments)
        record = current()
        record.add(Lap("wait", asked, prepared.laps[0].start))
        for lap in prepared.laps:
            record.add(lap)
        if prepared.picture:
            record.pixels += prepared.picture.width * prepared.picture.height
        return prepared

    def _encode(self, item: TextInput, tower: TextTower, options: Options) -> Prepared:
        began = time.perf_counter()
        self._check_length(item.source)
        hinted = next((name for name in options.prompt_hints if name in tower.prompts), None)
        ids = encode(
            item.source,
            tower,
            truncate=bool(options.truncate),
            direction=options.truncation_direction,
            prompt_name=options.prompt_name or hinted,
        )
        return Prepared(ids, laps=(Lap("tokenize", began, time.perf_counter()),))

    def _decode(self, source: str | bytes, tower: ImageTower, options: Options, limits: DecodeLimits) -> Prepared:
        began = time.perf_counter()
        data = encoded_bytes(source, self._settings.max_image_bytes)
        if tower.decodes and not options.resize_to_multiple and (left := undecoded(data, limits, tower.geometry)):
            jpeg, size = left
            return Prepared(jpeg.pack(), size, (Lap("decode", began, time.perf_counter()),))
        target = None if options.resize_to_multiple else tower.geometry.resized
        with decoded(data, limits, target=target) as image:
            there = time.perf_counter()
            if options.resize_to_multiple:
                pixels = to_multiple(image, tower.geometry, tower.stride, self._settings.max_patches)
            else:
                pixels = to_pixels(image, tower.geometry, fast=limits.fast)
            laps = Lap("decode", began, there), Lap("resize", there, time.perf_counter())
            return Prepared(pixels, PictureSize(*image.size), laps)

    def _check_length(self, text: Sized) -> None:
        """Rejects long texts: tokenizing needs a hundred times the memory of the text, even if it is truncated."""
        limit = self._settings.max_text_length
        if len(text) > limit:
            raise InvalidInput(f"has a length of {len(text)}, over the limit of {limit} (IEI_MAX_TEXT_LENGTH)")
