"""The client for ordinary code and notebooks: batches are prepared and sent by a few threads."""

from __future__ import annotations

import ssl
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
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


class Client:
    """A server, for programs without an event loop and for notebooks, which have one of their own.

    Several threads may use one client. It holds connections and threads until `close`, the end of a `with` block, or
    its own.

    Args:
        url: the server's address, such as `http://localhost:8000`. With `/m/NAME` at its end, `NAME` is the model of
            calls that name none.
        api_key: sent as `Authorization: Bearer`, and never logged.
        batch_size: most items of one request.
        concurrency: most requests at a time.
        timeout_s: how long an answer may take.
        retry_s: how long a request is sent again while the server is busy (429), away, or not ready (502, 503).
        verify: False accepts any certificate; a context may have an authority of your own.

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
        self._http = httpx2.Client(**self._connection.arguments())
        self._known: dict[str | None, Info] = {}
        self._asking = threading.Lock()
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="iei-client")
        # Many are never closed: those in notebooks, and those inside of other libraries' objects.
        self._closed = weakref.finalize(self, _close, self._threads, self._http)

    def embed_images(
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
        """Embeds pictures. What is left out is as the server and the model say.

        Args:
            images: one or more, also from a generator: paths, addresses (`http://…`, which the server fetches, and
                `data:…`), bytes of files, arrays uint8[H, W, 3] in RGB, or `PIL.Image`s. Arrays and `PIL.Image`s are
                sent without loss.
            model: a name that the server serves. Default: its first one.
            pooling: how the vectors of patches become one.
            normalize: divide each vector by its L2 norm.
            dimensions: keep so many leading values, before normalising.
            errors: a dict that gets the indices of bad pictures, and what is wrong with them. Their rows are NaN, and
                the others have their vectors. Default: bad pictures end the call.
            progress: show a bar on stderr.

        Returns:
            float32[n, d], in the order of the pictures, also for a single one.

        Raises:
            InputError: some pictures can't be embedded, and there is no `errors`. The first bad request is told.
            ServerError: the server refused a request, or was busy for longer than `retry_s`.
            Unreachable: there was no answer.
        """
        call = image_call(
            images, model=model, pooling=pooling, normalize=normalize, dimensions=dimensions, errors=errors
        )
        return self._embed(call, progress)

    def embed_texts(
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
        """Embeds texts. What is left out is as the server and the model say.

        Args:
            texts: one or more, also from a generator.
            model: a name that the server serves. Default: its first one.
            pooling: how the vectors of tokens become one.
            normalize: divide each vector by its L2 norm.
            dimensions: keep so many leading values, before normalising.
            prompt_name: one of the model's prompts, such as `query`, which is put before each text.
            truncate: cut texts that are too long, instead of refusing them.
            errors: a dict that gets the indices of bad texts, as in `embed_images`.
            progress: show a bar on stderr.

        Returns:
            float32[n, d], in the order of the texts, also for a single one.

        Raises:
            ClientError: see `embed_images`.
        """
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
        return self._embed(call, progress)

    def info(self, model: str | None = None) -> Info:
        """What the server says of a model (default: its first one), and of its own limits.

        Raises:
            ClientError: it does not say, because there is no such model, key or server.
        """
        return info_of(self._outcome({"method": "GET", "url": path_of(model, "info")}, threading.Event()))

    def close(self) -> None:
        """Ends its threads and connections."""
        self._threads.shutdown(cancel_futures=True)
        self._closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._connection.url!r})"

    def _limits(self, model: str | None) -> Info:
        """Of the server, with the dimensions of the model; asked for once."""
        with self._asking:
            if model not in self._known:
                self._known[model] = self.info(model)
            return self._known[model]

    def _embed(self, call: Call, progress: bool) -> Vectors:
        info = self._limits(call.model)
        coming = call.batches(self._connection.batch_size, info)
        # Twice as many as are sent at a time, so that a slow one does not keep the others from going on.
        most = 2 * self._connection.concurrency
        in_work: deque[Future[Vectors]] = deque()
        blocks: list[Vectors] = []
        stop = threading.Event()
        with call.progress(shown=progress) as bar:
            try:
                while True:
                    for batch in islice(coming, most - len(in_work)):
                        in_work.append(self._threads.submit(self._embed_batch, batch, stop))
                    if not in_work:
                        return call.joined(blocks, info)
                    blocks.append(in_work.popleft().result())
                    bar.update(len(blocks[-1]))
            finally:  # one has failed, or somebody pressed Ctrl-C
                stop.set()
                for future in in_work:
                    future.cancel()

    def _embed_batch(self, batch: Batch, stop: threading.Event) -> Vectors:
        """float32[n, d] of a batch, in one of the threads."""
        for request in batch.requests():
            request.outcome = self._outcome(request.arguments, stop)
        return batch.vectors

    def _outcome(self, arguments: Mapping[str, Any], stop: threading.Event) -> Outcome:
        """What comes of a request in the end. `stop` ends a pause before another attempt."""
        attempts = Attempts(self._connection.retry_s)
        request = self._http.build_request(**arguments)
        while True:
            outcome: Outcome
            try:
                outcome = self._http.send(request)
            except httpx2.RequestError as error:
                outcome = error
            pause_s = attempts.pause_s(outcome)
            if pause_s is None or stop.wait(pause_s):
                return outcome


def _close(threads: ThreadPoolExecutor, http: httpx2.Client) -> None:
    threads.shutdown(wait=False, cancel_futures=True)  # one of them may be what runs this
    http.close()
