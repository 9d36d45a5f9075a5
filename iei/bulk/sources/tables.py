"""Rows of a table → items, wherever the table is."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property, partial
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

from iei.bulk.items import Content, Encoded, Item, Text
from iei.bulk.sources.files import files_of, join
from iei.bulk.sources.pictures import at_address, looks_like_address, missing
from iei.errors import StartupError
from iei.models.spec import Modality

Kind = Literal["bytes", "picture", "string", "integer", "other"]
"""What the values of a column are: files' bytes, `{bytes, path}` structs, strings, whole numbers, or anything else."""
Row = tuple[Any, ...]
"""Values of the columns that were asked for, in that order."""


class Table(Protocol):
    """A file of rows, or rows in memory."""

    @property
    def path(self) -> str:
        """Where it is."""
        ...

    def columns(self) -> Mapping[str, Kind]:
        """Its columns, in order. Raises StartupError if it is no such file."""
        ...

    def rows(self, columns: Sequence[str]) -> Generator[Row]:
        """Yields the values of these columns, row by row, a bounded number of rows in memory.

        Raises:
            StartupError: the file is damaged here.
        """
        ...

    def count(self) -> int | None:
        """Rows, if the file says so."""
        ...


class Rows:
    """A table as a source.

    Args:
        table: the table.
        column: the one that is embedded. None: the only one that it can be.
        label: what ids begin with that are made of numbers of rows; may be empty.
        modality: what its strings are. None: pictures if they look like addresses of pictures.
        keep: columns of the output.
        id_column: the one that ids are from. None: `id`, or else numbers of rows.
    """

    skipped = 0

    def __init__(
        self,
        table: Table,
        column: str | None,
        label: str,
        modality: Modality | None,
        keep: Sequence[str],
        id_column: str | None,
    ) -> None:
        self._table = table
        self._column = column
        self._label = label
        self._modality = modality
        self._keep = tuple(keep)
        self._id_column = id_column

    def __iter__(self) -> Iterator[Item]:
        """See `Source`."""
        column, id_column, content = self._layout
        columns = tuple(dict.fromkeys(filter(None, (column, id_column, *self._keep))))
        for number, row in enumerate(self._table.rows(columns)):
            value = dict(zip(columns, row, strict=True))
            # An id that is null would be joined with nothing: the row's number finds it.
            id_ = value[id_column] if id_column else None
            yield Item(
                join(self._label, str(number)) if id_ is None else str(id_),
                content(value[column]),
                {name: value[name] for name in self._keep},
            )

    @property
    def total(self) -> int | None:
        """See `Source`."""
        return self._table.count()

    @cached_property
    def _layout(self) -> _Layout:
        """Found out when the table is first read: there may be thousands of them, far away."""
        path, kinds = self._table.path, self._table.columns()
        for name in filter(None, (self._column, self._id_column, *self._keep)):
            if name not in kinds:
                raise StartupError(f"{path} has no column {name!r}, but {_listed(kinds)}.")
        column = self._column or _embedded(path, kinds, self._modality)
        if kinds[column] not in _EMBEDDABLE:
            raise StartupError(f"{path}: column {column!r} has neither bytes, {{bytes, path}} structs nor strings.")
        if self._modality == "text" and kinds[column] != "string":
            raise StartupError(f"{path}: column {column!r} has pictures, and the modality is text.")
        if self._id_column and kinds[self._id_column] not in _IDS:
            raise StartupError(f"{path}: ids are strings or whole numbers; column {self._id_column!r} has neither.")
        id_column = self._id_column or ("id" if kinds.get("id") in _IDS else None)
        return _Layout(column, id_column, self._content(column, kinds[column]))

    def _content(self, column: str, kind: Kind) -> Callable[[Any], Content]:
        """What makes an item's content of a value."""
        path = self._table.path
        folder = posixpath.dirname(path)
        if kind == "bytes":
            return _bytes
        if kind == "picture":
            return partial(_struct, folder)
        if self._modality == "text":
            return _text
        with closing(self._table.rows((column,))) as rows:
            sample = [value for (value,) in islice(rows, _SAMPLE) if value]
        others = [value for value in sample if not looks_like_address(value)]
        if self._modality == "image" or not others:
            return partial(at_address, folder=_base(folder, sample))
        if len(others) == len(sample):
            return _text
        address = next(value for value in sample if looks_like_address(value))
        raise StartupError(
            f"{path}: column {column!r} has addresses of pictures ({address[:60]!r}) and others ({others[0][:60]!r}): "
            "say what they are by --modality image, or text."
        )


class _Layout(NamedTuple):
    """Which columns are read, and for what."""

    column: str
    id_column: str | None
    content: Callable[[Any], Content]


_IDS: Sequence[Kind] = ("string", "integer")
_EMBEDDABLE: Sequence[Kind] = ("bytes", "picture", "string")
_SAMPLE = 100
"""Strings that decide whether a column has addresses or texts."""
_NAMES: Mapping[Modality, Sequence[str]] = {
    "image": ("image", "img", "picture", "photo", "image_url", "url", "image_path", "file_name", "filename", "path"),
    "text": ("text", "sentence", "caption", "content", "document", "query"),
}
"""Names of columns that are embedded where several could be, the likeliest first."""


def _embedded(path: str, kinds: Mapping[str, Kind], modality: Modality | None) -> str:
    """The column that is embedded where none is named: of pictures, or else the only one, or else by its name."""
    able = [name for name, kind in kinds.items() if kind in _EMBEDDABLE]
    pictures = [name for name in able if kinds[name] != "string"]
    if modality != "text" and len(pictures) == 1:
        return pictures[0]
    able = [name for name in able if kinds[name] == "string"] if modality == "text" else able
    likely = [name for names in _likely(modality) for name in names if name in able]
    found = able if len(able) == 1 else likely
    if not found:
        raise StartupError(
            f"{path} has {_listed(kinds)}: name the one that is embedded (for `iei embed`: {path}:COLUMN)."
        )
    return found[0]


def _likely(modality: Modality | None) -> Sequence[Sequence[str]]:
    return [_NAMES[modality]] if modality else list(_NAMES.values())


def _listed(kinds: Mapping[str, Kind]) -> str:
    return "the columns " + ", ".join(kinds) if kinds else "no columns"


def _base(folder: str, sample: Sequence[str]) -> str:
    """Where relative paths of a column begin: at the table's folder, or, if only that leads to a file, at ours."""
    relative = [path for path in sample if not path.startswith("/") and ":" not in path[:16]][:1]
    here = [path for path in relative if not files_of(folder).exists(join(folder, path)) and files_of("").exists(path)]
    return "" if here else folder


def _bytes(value: bytes | None) -> Content:
    return Encoded(value) if value else missing(value)


def _struct(folder: str, value: Mapping[str, Any] | None) -> Content:
    """Hugging Face's Image: the file's bytes, or its path."""
    if value and value.get("bytes"):
        return Encoded(value["bytes"])
    return at_address(value.get("path") if value else None, folder)


def _text(value: str | None) -> Content:
    return Text(value) if value else missing(value)
