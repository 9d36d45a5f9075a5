"""The client for programs with an event loop: batches are prepared in threads, and sent by tasks."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Iterable, Mapping, MutableMapping
from itertools import islice
from types import TracebackType
from typing import Any, Self

import httpx2

from iei.client.answers import Info, Vectors, info_of
from iei.client.batches import Batch
from iei.client.calls import Call, Pooling, image_call, path_of, text_call
from iei.client.connection import Connection
from iei.client.pictures import ImageItem
from iei.client.retries import Attempts, Outcome


class AsyncClient:
    """A server, for programs with an event loop (asyncio). Its methods are those of `Client`.

    It holds connections until `close`, or the end of an `async with` block. One client is for one event loop, and for
    as many tasks as you like: `concurrency` bounds the requests of all of them.

    Args:
        url: the server's address; this and all others are described at `Client`.
        api_key: sent as `Authorization: Bearer`, and never logged.
        batch_size: most items of one request.
        concurrency: most requests at a time.
        timeout_s: how long an answer may take.
        retry_s: how long a request is sent again.
        verify: False accepts any certificate.

    Raises:
        ValueError: `url` is not an address.
    """

    def __init__(
        self,
        url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        batch_size: int = 32,
        concurrency: int = 8,
        timeout_s: float = 300,
        retry_s: float = 60,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._connection = Connection(
            url=url,
            api_key=api_key,
            batch_size=batch_size,
            concurrency=concurrency,
            timeout_s=timeout_s,
            retry_s=retry_s,
            verify=verify,
        )
        self._http = httpx2.AsyncClient(**self._connection.arguments())
        self._at_a_time = asyncio.Semaphore(concurrency)
        self._known: dict[str | None, Info] = {}
        self._asking = asyncio.Lock()

    async def embed_images(
        self,
        images: ImageItem | Iterable[ImageItem],
        *,
        model: str | None = None,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        errors: MutableMapping[int, str] | None = None,
        progress: bool = False,
    ) -> Vectors:
        """Embeds pictures: see `Client.embed_images`."""
        call = image_call(
            images, model=model, pooling=pooling, normalize=normalize, dimensions=dimensions, errors=errors
        )
        return await self._embed(call, progress)

    async def embed_texts(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        prompt_name: str | None = None,
        truncate: bool | None = None,
        errors: MutableMapping[int, str] | None = None,
        progress: bool = False,
    ) -> Vectors:
        """Embeds texts: see `Client.embed_texts`."""
        call = text_call(
            texts,
            model=model,
            pooling=pooling,
            normalize=normalize,
            dimensions=dimensions,
            prompt_name=prompt_name,
            truncate=truncate,
            errors=errors,
        )
        return await self._embed(call, progress)

    async def info(self, model: str | None = None) -> Info:
        """What the server says of a model and of its limits: see `Client.info`."""
        return info_of(await self._outcome({"method": "GET", "url": path_of(model, "info")}))

    async def close(self) -> None:
        """Ends its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._connection.url!r})"

    async def _limits(self, model: str | None) -> Info:
        """Of the server, with the dimensions of the model; asked for once."""
        async with self._asking:
            if model not in self._known:
                self._known[model] = await self.info(model)
            return self._known[model]

    async def _embed(self, call: Call, progress: bool) -> Vectors:
        info = await self._limits(call.model)
        coming = call.batches(self._connection.batch_size, info)
        # Twice as many as are sent at a time, so that a slow one does not keep the others from going on.
        most = 2 * self._connection.concurrency
        in_work: deque[asyncio.Task[Vectors]] = deque()
        blocks: list[Vectors] = []
        with call.progress(shown=progress) as bar:
            try:
                while True:
                    for batch in islice(coming, most - len(in_work)):
                        in_work.append(asyncio.create_task(self._embed_batch(batch)))
                    if not in_work:
                        return call.joined(blocks, info)
                    blocks.append(await in_work[0])
                    in_work.popleft()
                    bar.update(len(blocks[-1]))
            finally:  # one has failed, or the caller was cancelled
                for task in in_work:
                    task.cancel()
                await asyncio.gather(*in_work, return_exceptions=True)

    async def _embed_batch(self, batch: Batch) -> Vectors:
        """float32[n, d] of a batch."""
        requests = batch.requests()
        async with self._at_a_time:
            # Files are read, pixels encoded and answers read where the next request is made: not on the event loop.
            while request := await asyncio.to_thread(next, requests, None):
                request.outcome = await self._outcome(request.arguments)
        return batch.vectors

    async def _outcome(self, arguments: Mapping[str, Any]) -> Outcome:
        """What comes of a request in the end."""
        attempts = Attempts(self._connection.retry_s)
        request = self._http.build_request(**arguments)
        while True:
            outcome: Outcome
            try:
                outcome = await self._http.send(request)
            except httpx2.RequestError as error:
                outcome = error
            pause_s = attempts.pause_s(outcome)
            if pause_s is None:
                return outcome
            await asyncio.sleep(pause_s)
