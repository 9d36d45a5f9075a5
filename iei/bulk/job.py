"""The loop of a bulk job: items → rows → parts or lines, until the input ends or somebody stops it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

import orjson

from iei.bulk.contents import Content
from iei.bulk.embedder import Embedder
from iei.bulk.folder import PartsFolder, opened
from iei.bulk.items import Item, Source
from iei.bulk.kept import with_types
from iei.bulk.manifest import WHOLE, Finished, Shard
from iei.bulk.part_writer import PartWriter
from iei.bulk.plan import Plan, Todo
from iei.bulk.progress import Progress
from iei.bulk.row import Row
from iei.bulk.seen import Seen
from iei.bulk.tally import Tally
from iei.errors import StartupError

T = TypeVar("T")

OnError = Literal["column", "stop"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How a job goes about its parts and its errors."""

    part_size: int = 50_000
    """Items of a part."""
    shard: Shard = WHOLE
    on_error: OnError = "column"
    """`column`: an item that can't be embedded has a row with its error. `stop`: it ends the job."""
    retry_errors: bool = False
    """Try the items again that have errors in the parts that are there."""
    max_error_rate: float = 0.05
    """Share of rows with errors beyond which the job ends. 1: it never does."""
    dedup: bool = False
    """Only the first item of each content has a row."""
    errors_file: Path | None = None
    """Gets a line of JSON for each row with an error."""


class Job:
    """One run over an input.

    Args:
        embedder: computes the rows.
        source: the input.
        rules: what is done with rows.
        progress: is told of each row.
    """

    def __init__(self, embedder: Embedder, source: Source, rules: Rules, progress: Progress) -> None:
        self.tally = Tally()
        self.finished: list[Finished] = []
        """Parts that are there, of all shards."""
        self._embedder = embedder
        self._source = source
        self._rules = rules
        self._progress = progress
        self._errors: TextIO | None = None

    async def into_lines(self, out: TextIO, line: Callable[[Row], Any]) -> None:
        """Writes a line of JSON for each row without an error, what `line` makes of it; says what the others are.

        Raises:
            StartupError: as `into_parts`.
            OSError: `out` can't be written.
        """
        with ExitStack() as stack:
            self._open_errors(stack)
            is_new = self._duplicates(stack).add if self._rules.dedup else None
            async for row in self._rows(iter(self._source), _by_digest(is_new)):
                if row.embedding is not None:
                    out.write(orjson.dumps(line(row), option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
                elif row.error is not None:
                    self._progress.say(f"{row.id}: {row.error}")

    async def into_parts(self, folder: Path) -> None:
        """Makes the parts of this run's shard that are not in `folder` yet.

        Raises:
            OtherJob: the parts that are there are of other items, or were made in another way.
            StartupError: the input or the folder can't be used (any more), or the job has ended by its rules. Parts
                that were finished stay, and a run with the same arguments goes on after them.
            IEIError: nothing can be embedded any more.
            OSError: the folder can't be written.
        """
        kept, items = await asyncio.to_thread(with_types, iter(self._source), self._embedder.options.keep)
        schema = self._embedder.schema(kept)
        with ExitStack() as stack:
            parts = stack.enter_context(opened(folder, self._description(kept), self._rules.shard))
            self._open_errors(stack)
            await asyncio.to_thread(self._tell_errors_of, parts)
            plan = Plan(
                items,
                self._rules.part_size,
                self._rules.shard,
                parts.manifest.finished,
                parts.ids_of_errors if self._rules.retry_errors else None,
                self.tally.passed_over,
            )
            is_new = None
            if self._rules.dedup:
                seen = self._duplicates(stack)
                await asyncio.to_thread(seen.add_all, parts.digests())
                is_new = seen.add
            made = _Parts(parts, plan, partial(PartWriter, folder, schema))
            try:
                async for row in self._rows(plan, _by_digest(is_new, plan.again)):
                    await made.add(row)
                await made.finish()
            finally:
                made.abandon()
                self.finished = parts.finished

    async def _rows(self, items: Iterator[Item] | Plan, is_new: Callable[[Content], bool]) -> AsyncIterator[Row]:
        """All rows, counted and shown. Raises StartupError where the rules say that they are to be the last."""
        async with self._embedder.running() as running, aclosing(running.rows(items, is_new)) as rows:
            async for row in rows:
                self.tally.add(row)
                if row.error is not None:
                    self._note(row.id, row.error)
                    if self._rules.on_error == "stop":
                        raise StartupError(f"{row.id}: {row.error} (--on-error stop).")
                    if fault := self.tally.too_many_errors(self._rules.max_error_rate):
                        raise StartupError(f"{fault} The last one: {row.id}: {row.error}")
                yield row
                self._progress.show(self.tally)

    def _description(self, kept: dict[str, Any]) -> dict[str, Any]:
        """What all parts of the job have in common."""
        return {
            **self._embedder.fingerprint,
            "part_size": self._rules.part_size,
            "dedup": self._rules.dedup,
            "thumbnails": self._embedder.options.thumbnails,
            "keep": {name: str(kind) for name, kind in kept.items()},
        }

    def _duplicates(self, stack: ExitStack) -> Seen:
        seen = Seen()
        stack.callback(seen.close)
        return seen

    def _open_errors(self, stack: ExitStack) -> None:
        if self._rules.errors_file:
            self._errors = stack.enter_context(self._rules.errors_file.open("w", encoding="utf-8"))

    def _tell_errors_of(self, parts: PartsFolder) -> None:
        """Those of parts that are there, unless they are tried again: the file has all errors of the job."""
        if self._errors and not self._rules.retry_errors:
            for part in parts.finished:
                if part.part in self._rules.shard:
                    for item_id, error in parts.errors(part):
                        self._note(item_id, error)

    def _note(self, item_id: str, error: str) -> None:
        if self._errors:
            self._errors.write(orjson.dumps({"id": item_id, "error": error}).decode() + "\n")
            self._errors.flush()


class _Parts:
    """The parts that a run makes, one after the other, out of rows that come in order."""

    def __init__(self, folder: PartsFolder, plan: Plan, writer_of: Callable[..., PartWriter]) -> None:
        self._folder = folder
        self._plan = plan
        self._writer_of = writer_of
        self._current: tuple[Todo, PartWriter] | None = None

    async def add(self, row: Row) -> None:
        """Adds the next row to its part."""
        await self._finish_if_complete()
        if self._current is None:
            todo = self._plan.todo.popleft()
            earlier = self._folder.manifest.finished.get(todo.part) if todo.again else None
            self._current = todo, self._writer_of(todo.part, earlier)
        _, writer = self._current
        if writer.add(row):
            await in_thread(writer.write)
        await self._finish_if_complete()

    async def finish(self) -> None:
        """The input has ended."""
        await self._finish_if_complete()
        assert self._current is None

    def abandon(self) -> None:
        """Removes what is not finished."""
        if self._current:
            _, writer = self._current
            writer.abandon()

    async def _finish_if_complete(self) -> None:
        """Has the part on disk, and in the manifest, once its last row is there."""
        if self._current is None:
            return
        todo, writer = self._current
        if todo.is_read and writer.seen == todo.given:
            await in_thread(lambda: self._folder.manifest.add(writer.finish(todo.ids)))
            self._current = None


def _by_digest(add: Callable[[str], bool] | None, again: Collection[str] = ()) -> Callable[[Content], bool]:
    """Whether a content is new. All are without `add`; and those that are tried `again`, which had a row before."""

    def is_new(content: Content) -> bool:
        if add is None or content.sha256 is None or content.item.id in again:
            return True
        return add(content.sha256)

    return is_new


async def in_thread(call: Callable[[], T]) -> T:
    """What `call` returns or raises, in a thread; it has ended when this does, even if that is by being cancelled."""
    future = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
