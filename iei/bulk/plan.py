"""Which items are to be computed: those of the parts of a shard that are not there yet, or are to be tried again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from iei.bulk.ids import Ids
from iei.bulk.items import Item
from iei.bulk.manifest import Finished, OtherJob, Shard, part_name


class Todo:
    """A part that is to be made.

    Args:
        part: its number.
        again: ids of those of its items that are computed once more, as the part is there. None: all are.
    """

    def __init__(self, part: int, again: frozenset[str] | None = None) -> None:
        self.part = part
        self.again = again
        self.ids = Ids()
        """Of all items of the part that have been read so far."""
        self.given = 0
        """Items that have been given out to be computed."""
        self.is_read = False
        """Whether all of them have been: then `given` is final."""


class Plan:
    """The items of a job, part by part.

    Iterating gives the items that are to be computed, and puts each part into `todo` before its first item: items and
    parts have one order. What iterates may be another thread than what takes parts out of `todo`.

    Args:
        source: all items of the job.
        size: items of a part.
        shard: whose parts are made.
        finished: parts that are there.
        errors_of: a part → the ids of its items to try again. Parts without errors are not asked about.
        passed: called with each part that is there, and with how many of its items are tried again.
    """

    def __init__(
        self,
        source: Iterable[Item],
        size: int,
        shard: Shard,
        finished: Mapping[int, Finished],
        errors_of: Callable[[Finished], frozenset[str]] | None = None,
        passed: Callable[[Finished, int], None] = lambda part, again: None,
    ) -> None:
        self.todo: deque[Todo] = deque()
        self.again: set[str] = set()
        """Ids of all items that are tried again."""
        self._source = source
        self._size = size
        self._shard = shard
        self._finished = dict(finished)
        self._errors_of = errors_of
        self._passed = passed

    def __iter__(self) -> Iterator[Item]:
        """Yields the items that are to be computed.

        Raises:
            OtherJob: the input has other items than the parts that are there were made of.
        """
        coming = iter(self._source)
        part = 0
        while (first := next(coming, None)) is not None:
            items = _chain(first, islice(coming, self._size - 1))
            if part in self._shard:
                yield from self._part(part, items)
            else:
                deque(items, maxlen=0)
            part += 1
        gone = [number for number in self._finished if number >= part and number in self._shard]
        if gone:
            raise OtherJob(
                f"{part_name(min(gone))} was made of items that the input does not have any more: it has {part} parts "
                f"of {self._size} items. Write to another folder, or restore the input."
            )

    def _part(self, part: int, items: Iterable[Item]) -> Iterator[Item]:
        finished = self._finished.get(part)
        if not finished:
            todo = Todo(part)
            yield from self._given(todo, items)
        else:
            again = self._errors_of(finished) if self._errors_of and finished.errors else frozenset[str]()
            todo = Todo(part, again)
            self.again |= again
            if again:
                yield from self._given(todo, items)
            else:
                deque(map(todo.ids.add, (item.id for item in items)), maxlen=0)
            _check(todo.ids, finished)
            self._passed(finished, len(again))
        todo.is_read = True

    def _given(self, todo: Todo, items: Iterable[Item]) -> Iterator[Item]:
        self.todo.append(todo)
        for item in items:
            todo.ids.add(item.id)
            if todo.again is None or item.id in todo.again:
                todo.given += 1
                todo.is_read = todo.again is None and todo.ids.count == self._size
                yield item


def _chain(first: Item, others: Iterable[Item]) -> Iterator[Item]:
    yield first
    yield from others


def _check(ids: Ids, finished: Finished) -> None:
    if ids.digest != finished.ids:
        raise OtherJob(
            f"{finished.name} was made of other items than the input has there now: of {finished.items}, "
            f"{finished.first!r} to {finished.last!r}, and now these are {ids.count}, {ids.first!r} to {ids.last!r}. "
            "The input has changed: restore it, or write to another folder."
        )
