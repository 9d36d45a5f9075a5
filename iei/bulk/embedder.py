"""Items → rows, in order and in constant memory: what `iei embed` and the actors of Ray Data do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from iei.bulk.computer import Computer
from iei.bulk.contents import READS, Content, Reader
from iei.bulk.fingerprint import Fingerprint
from iei.bulk.items import Item
from iei.bulk.local import LocalModel
from iei.bulk.options import STORED_AS, BulkOptions
from iei.bulk.ordered import in_order, pulled
from iei.bulk.row import Row
from iei.bulk.schema import schema_of, table_of
from iei.bulk.sources.arrow import InMemory
from iei.bulk.sources.tables import Rows
from iei.bulk.thumbnails import Thumbnails
from iei.errors import InvalidInput
from iei.inputs.decode import picture_size
from iei.requests import Vectors
from iei.settings import Settings
from iei.vectors import Quantized, quantized

T = TypeVar("T")

_IDS = ("id", "path")
"""Columns that rows of a table are called by where none is named."""
HELD_BYTES = 256 * 2**20
"""Encoded pictures that wait to be computed: beyond this, no more are taken."""


class Embedder:
    """Embeds items with a model in this process, or with servers. Its arguments can be pickled.

    For one event loop, with `running`; or, with `table`, for programs that have none.

    Args:
        settings: as those of a server: the model, its device, limits on pictures.
        options: what rows are to have.
        computer: what computes. Default: the model of `settings`, in this process.

    Raises:
        StartupError: the model can't be loaded.
        IEIError: it can't give what `options` want.
    """

    def __init__(self, settings: Settings, options: BulkOptions, computer: Computer | None = None) -> None:
        self.computer = computer or LocalModel(settings, options)
        self.options = options
        self._inputs = settings.inputs
        self._thumbnails = Thumbnails(options.thumbnails, settings.inputs) if options.thumbnails else None
        self._thread: _LoopThread | None = None
        self._stored(np.zeros(self.computer.dimension, np.float32))  # whether that can be done

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the numbers of the vectors, as they are stored."""
        return {**self.computer.fingerprint, "encoding": self.options.encoding}

    def schema(self, kept: Mapping[str, pa.DataType]) -> pa.Schema:
        """The columns that rows have, for columns of the input that they keep (name → type)."""
        return schema_of(
            self.fingerprint,
            dimension=self.computer.dimension,
            encoding=self.options.encoding,
            kept=kept,
            thumbnails=bool(self.options.thumbnails),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Starts the computer, and stops it at the end of the block."""
        async with AsyncExitStack() as stack:
            reader = Reader(self._inputs)
            stack.push_async_callback(reader.close)
            stack.push_async_callback(self.computer.stop)
            await self.computer.start()
            yield Running(reader, self._row, self.computer.in_work)

    def table(self, table: pa.Table, column: str | None = None, id_column: str | None = None) -> pa.Table:
        """A table of a row for each row of `table`, in its order. Bad inputs have an `error`, and raise nothing.

        It computes in a thread of its own, which is kept until `close`, so that tables may come one by one.

        Args:
            table: what to embed, with the columns that are to be kept.
            column: of the pictures or texts: bytes, structs {bytes, path}, or strings: texts if the modality is
                `text` or the model takes no pictures, else addresses (http, https, fsspec's) and paths. Default: the
                one that `iei embed` would take of a file.
            id_column: what rows are called. Default: `id` or else `path`, if there is such a column, or else numbers.

        Raises:
            StartupError: the table has no such column, or it is of another type.
            IEIError: nothing can be embedded any more.
        """
        # The first modality, not what the strings look like: all tables of a job must be read alike.
        modality = self.options.modality or self.computer.modalities[0]
        id_column = id_column or next((name for name in _IDS if name in table.column_names), None)
        items = Rows(InMemory(table), column, "", modality, self.options.keep, id_column)
        self._thread = self._thread or _LoopThread(self.running())
        rows = self._thread.call(lambda running: _listed(running.rows(items)))
        return table_of(rows, self.schema({name: table.schema.field(name).type for name in self.options.keep}))

    def close(self) -> None:
        """Ends what `table` started."""
        thread, self._thread = self._thread, None
        if thread:
            thread.close()

    async def _row(self, content: Content) -> Row:
        row = Row(content.item.id, sha256=content.sha256, error=content.error, kept=content.item.kept)
        data = content.data
        if data is None:
            return row
        try:
            embedding = await self.computer.embed(data)
            row = replace(row, embedding=self._stored(embedding.vector), picture=embedding.picture)
        except InvalidInput as error:
            row = replace(row, error=str(error))
        if isinstance(data, bytes) and (row.picture is None or self._thumbnails):
            row = await asyncio.to_thread(self._looked_at, row, data)
        return row

    def _looked_at(self, row: Row, data: bytes) -> Row:
        """With the size of its picture, and a thumbnail where they are wanted. In a thread."""
        thumbnail = self._thumbnails.of(data) if self._thumbnails and not row.error else None
        return replace(row, picture=row.picture or picture_size(data), thumbnail=thumbnail)

    def _stored(self, vector: Vectors) -> Quantized:
        if len(vector) != self.computer.dimension:
            raise InvalidInput(
                f"has a vector of {len(vector)} values, and the column has {self.computer.dimension}: pictures and "
                "texts of this model have a length in common with --pooling pooler only"
            )
        return quantized(vector, STORED_AS[self.options.encoding])


class Running:
    """An embedder that has been started, on its event loop."""

    def __init__(self, reader: Reader, row: Callable[[Content], Coroutine[Any, Any, Row]], in_work: int) -> None:
        self._reader = reader
        self._row = row
        self._in_work = in_work

    async def rows(
        self, items: Iterable[Item], is_new: Callable[[Content], bool] = lambda content: True
    ) -> AsyncGenerator[Row]:
        """A row for each item, in the order of the items.

        Args:
            items: are read ahead in threads, a few batches of them.
            is_new: is called with each item, in their order, when it has been read and nothing is computed yet. If
                it is not, nothing will be, and the row says `is_duplicate`.

        Raises:
            StartupError: the items can't be read any further.
            IEIError: nothing can be embedded any more.
        """

        async def row(content: Content, new: bool) -> Row:
            return await self._row(content) if new else Row(content.item.id, is_duplicate=True)

        async with in_order(pulled(items), self._reader.read, READS) as contents:
            looked_up = ((content, is_new(content)) async for content in contents)
            async with in_order(
                looked_up, lambda pair: row(*pair), self._in_work, weight=lambda pair: pair[0].size, heaviest=HELD_BYTES
            ) as rows:
                async for each in rows:
                    yield each


async def _listed(rows: AsyncIterator[Row]) -> list[Row]:
    return [row async for row in rows]


class _LoopThread:
    """An event loop in a thread, and an embedder that runs there."""

    def __init__(self, running: AbstractAsyncContextManager[Running]) -> None:
        self._running = running
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="embedder", daemon=True)
        self._thread.start()
        self._embedder = self._wait(running.__aenter__())

    def call(self, work: Callable[[Running], Coroutine[Any, Any, T]]) -> T:
        """What `work` returns or raises, on the loop."""
        return self._wait(work(self._embedder))

    def close(self) -> None:
        """Stops the embedder and the loop."""
        self._wait(self._running.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
