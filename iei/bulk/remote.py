"""Servers that compute the vectors of a bulk job: what they are asked for, and what becomes of it when one is away."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from iei.bulk.fingerprint import Fingerprint, differences, plain
from iei.bulk.options import BulkOptions
from iei.client import AsyncClient, Client, ClientError, Info, ServerError
from iei.errors import InvalidInput, StartupError
from iei.models.spec import MODALITIES, Modality
from iei.requests import Embedding

BATCH = 16
"""Most inputs of one request."""
AT_A_TIME = 4
"""Requests that a server has at a time: while one is answered, the next are decoded."""
ATTEMPTS = 5
"""How often servers may go away while they have an input, before it is taken for the cause."""
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between two questions whether a server is back."""
GIVE_UP_S = 300.0
"""How long no server at all may answer."""
_PASSES = frozenset({429, 502, 503, 504})
"""Statuses of a server that is busy, away, or not ready."""


@dataclass(slots=True, eq=False)
class _Wanted:
    """An input that waits for its vector."""

    data: bytes | str
    vector: asyncio.Future[Any]
    attempts: int = 0


class Servers:
    """Implements `Computer` with servers of IEI that have the same model.

    Each takes the next inputs whenever it has room, so a fast one gets more. One that does not answer is left aside
    and asked now and then whether it is back; its inputs go to the others.

    Args:
        urls: their addresses; `/m/NAME` at the end of one names a model.
        options: what is wanted.
        api_key: sent to all of them.

    Raises:
        StartupError: one does not answer now, or they would give different vectors.
    """

    busy: Mapping[str, float] = {}

    def __init__(self, urls: Sequence[str], options: BulkOptions, api_key: str | None = None) -> None:
        self._urls = urls
        self._options = options
        self._api_key = api_key
        infos = [self._info(url) for url in urls]
        self.fingerprint = _fingerprint(infos[0], options)
        for url, info in zip(urls[1:], infos[1:], strict=True):
            different = list(differences(self.fingerprint, _fingerprint(info, options)))
            if different:
                name, ours, theirs = different[0]
                raise StartupError(
                    f"{urls[0]} and {url} would give different vectors: {name} is {ours!r} and {theirs!r}."
                )
        self.dimension: int = self.fingerprint["dimensions"]
        self.modalities: tuple[Modality, ...] = tuple(each for each in MODALITIES if each in infos[0]["modalities"])
        self.warnings: tuple[str, ...] = ()
        self._name = infos[0]["model_name"]
        self.in_work = 2 * BATCH * AT_A_TIME * len(urls)
        self._waiting: deque[_Wanted] = deque()
        self._senders: list[asyncio.Task[None]] = []
        self._clients: list[AsyncClient] = []
        self._failure: Exception | None = None
        """Why nothing can be embedded any more."""
        self._away: set[str] = set()
        """Servers that are left aside."""
        self._none_since: float | None = None
        """When the last of them went."""

    async def start(self) -> None:
        """Opens connections, on the event loop that will call `embed`."""
        self._arrived = asyncio.Condition()
        for url in self._urls:
            client = AsyncClient(url, api_key=self._api_key, batch_size=BATCH, concurrency=AT_A_TIME, retry_s=0)
            self._clients.append(client)
            self._senders += [asyncio.create_task(self._send_all(url, client)) for _ in range(AT_A_TIME)]

    async def stop(self) -> None:
        """Closes them."""
        for task in self._senders:
            task.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        for client in self._clients:
            await client.close()
        self._senders, self._clients = [], []

    async def embed(self, data: bytes | str) -> Embedding:
        """As `Computer.embed`."""
        if self._failure:
            raise self._failure
        modality: Modality = "text" if isinstance(data, str) else "image"
        if modality not in self.modalities:
            raise InvalidInput(f"model {self._name!r} takes no {modality}s")
        wanted = _Wanted(data, asyncio.get_running_loop().create_future())
        await self._put([wanted])
        return Embedding({"default": await wanted.vector}, 0)

    async def _put(self, wanted: Sequence[_Wanted]) -> None:
        """Before those that wait: they came earlier, if they have been tried."""
        async with self._arrived:
            if wanted[0].attempts:
                self._waiting.extendleft(reversed(wanted))
            else:
                self._waiting.extend(wanted)
            self._arrived.notify(len(wanted))

    async def _take(self) -> list[_Wanted]:
        """The next ones, at least one; all are pictures, or all are texts."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._waiting)
            batch = [self._waiting.popleft()]
            kind = type(batch[0].data)
            while self._waiting and len(batch) < BATCH and type(self._waiting[0].data) is kind:
                batch.append(self._waiting.popleft())
            return batch

    async def _send_all(self, url: str, client: AsyncClient) -> None:
        """One of the requests that a server has at a time, again and again."""
        while True:
            batch = [wanted for wanted in await self._take() if not wanted.vector.done()]
            if not batch:
                continue
            try:
                errors: dict[int, str] = {}
                vectors = await self._vectors(client, [wanted.data for wanted in batch], errors)
            except ClientError as error:
                if isinstance(error, ServerError) and error.status not in _PASSES:
                    self._fail(StartupError(f"{url}: {error}"), batch)
                    continue
                await self._again(batch, f"{url}: {error}")
                await self._until_back(url, client, str(error))
            except Exception as error:  # a mistake of ours: whoever waits must hear of it
                self._fail(error, batch)
            else:
                for place, wanted in enumerate(batch):
                    if not wanted.vector.done():
                        if place in errors:
                            wanted.vector.set_exception(InvalidInput(errors[place]))
                        else:
                            wanted.vector.set_result(vectors[place])

    async def _vectors(self, client: AsyncClient, items: Sequence[Any], errors: dict[int, str]) -> Any:
        wanted: dict[str, Any] = {
            "pooling": self._options.pooling,
            "normalize": self._options.normalize,
            "dimensions": self._options.dimensions,
            "errors": errors,
        }
        if isinstance(items[0], str):
            return await client.embed_texts(items, truncate=self._options.truncate or None, **wanted)
        return await client.embed_images(items, **wanted)

    async def _again(self, batch: Sequence[_Wanted], why: str) -> None:
        """Gives inputs to whoever takes them next, but for those whose servers have gone away too often."""
        for wanted in batch:
            wanted.attempts += 1
            if wanted.attempts >= ATTEMPTS and not wanted.vector.done():
                wanted.vector.set_exception(InvalidInput(f"{ATTEMPTS} requests with it have failed, at last: {why}"))
        if left := [wanted for wanted in batch if not wanted.vector.done()]:
            await self._put(left)

    async def _until_back(self, url: str, client: AsyncClient, why: str) -> None:
        """Returns when a server answers again."""
        self._away.add(url)
        for pause_s in chain(PAUSES_S, repeat(PAUSES_S[-1])):
            if len(self._away) == len(self._urls):
                self._none_since = self._none_since or time.monotonic()
                if time.monotonic() - self._none_since > GIVE_UP_S:
                    self._fail(StartupError(f"no server has answered for {GIVE_UP_S:g} s, at last {url}: {why}"), [])
            await asyncio.sleep(pause_s)
            with suppress(ClientError):
                await client.info()
                break
        self._away.discard(url)
        self._none_since = None

    def _fail(self, error: Exception, batch: Sequence[_Wanted]) -> None:
        self._failure = error
        for wanted in (*batch, *self._waiting):
            if not wanted.vector.done():
                wanted.vector.set_exception(error)
        self._waiting.clear()

    def _info(self, url: str) -> Info:
        try:
            with Client(url, api_key=self._api_key, retry_s=0) as client:
                return client.info()
        except (ClientError, ValueError) as error:
            raise StartupError(f"--server {url}: {error}") from None


def _fingerprint(info: Mapping[str, Any], options: BulkOptions) -> Fingerprint:
    """What a server says of what decides its vectors. It does not say which versions of others' programs it has."""
    modality = options.modality or info["modalities"][0]
    tower = info.get(modality) or {}
    poolings = tower.get("poolings", info["poolings"])
    pooling = options.pooling or tower.get("pooling", info["pooling"])
    if pooling not in poolings:
        raise StartupError(f"{info['model_name']!r} does not offer the pooling {pooling!r}: {', '.join(poolings)}.")
    normalize = info["normalize"].get(modality) if options.normalize is None else options.normalize
    return plain(
        {
            "model": info["model_id"],
            "revision": info.get("revision"),
            "pooling": pooling,
            "normalize": normalize,
            "dimensions": options.dimensions or poolings[pooling],
            "precision": info.get("dtype"),
            "geometry": info.get("image"),
            "runtime": info.get("runtime"),
            "versions": {"iei": info["version"]},
        }
    )
