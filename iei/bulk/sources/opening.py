"""The inputs of a command line → one source."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from iei.bulk.items import Item, Source
from iei.bulk.sources.arrow import ArrowFile, Parquet
from iei.bulk.sources.braces import expand
from iei.bulk.sources.delimited import Delimited
from iei.bulk.sources.files import Files, LocalFiles, files_of
from iei.bulk.sources.folders import Folder, Pattern, SingleAddress, SingleFile
from iei.bulk.sources.lines import Lines, standard_input
from iei.bulk.sources.pictures import SUFFIXES
from iei.bulk.sources.reading import reading
from iei.bulk.sources.tables import Rows, Table
from iei.bulk.sources.tars import Shard
from iei.bulk.sources.walk import MAGIC, glob, walk
from iei.errors import StartupError
from iei.models.spec import Modality

LOOKED_AT = 16
"""Sources of which the first item is read before the job begins: those of a pattern are alike, and may be far away."""


def open_source(
    inputs: Sequence[str], *, modality: Modality | None, keep: Sequence[str] = (), id_column: str | None = None
) -> Source:
    """Everything that `inputs` name, in their order, as one source.

    Args:
        inputs: folders, patterns, files, `-` for stdin, `shard-{000..127}.tar`, `x.parquet[:column]`,
            `urls.csv:column`, http and https addresses of pictures; all but stdin may be URLs of fsspec.
        modality: what strings are. None: decided by what they look like.
        keep: columns that the output keeps.
        id_column: the column that ids are from.

    Raises:
        StartupError: an input does not exist, has no pictures, or lacks a column. It is seen here, before a model is
            loaded for nothing.
    """
    wanted = _Wanted(modality, keep, id_column)
    found = [found for written in inputs for found in _found(written)]
    if not found:
        raise StartupError("no input: give a folder, a pattern, files, or - for stdin.")
    sources = [_opener(place)(place, wanted) for place in _labelled(found)]
    for source in [source for source in sources if not isinstance(source, Lines)][:LOOKED_AT]:
        next(iter(source), None)
    return sources[0] if len(sources) == 1 else Several(sources)


class Several:
    """Sources one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def __iter__(self) -> Iterator[Item]:
        """See `Source`."""
        for source in self._sources:
            yield from source

    @property
    def total(self) -> int | None:
        """See `Source`."""
        totals = [source.total for source in self._sources]
        return None if None in totals else sum(filter(None, totals))

    @property
    def skipped(self) -> int:
        """See `Source`."""
        return sum(source.skipped for source in self._sources)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the job says about all its inputs."""

    modality: Modality | None
    keep: Sequence[str]
    id_column: str | None


@dataclass(frozen=True, slots=True)
class _Place:
    """One file, folder, pattern or address of the input."""

    files: Files
    path: str
    column: str | None = None
    label: str = ""
    """What its ids begin with, where they are not ids of the input's own."""


_Opener = Callable[[_Place, _Wanted], Source]


def _shard(place: _Place, wanted: _Wanted) -> Source:
    if wanted.id_column:
        raise StartupError(f"{place.path}: ids of samples are their keys; it has no column {wanted.id_column!r}.")
    return Shard(place.files, place.path, place.column, place.label, wanted.modality, wanted.keep)


def _table(table: Callable[[Files, str], Table], place: _Place, wanted: _Wanted) -> Source:
    return Rows(
        table(place.files, place.path), place.column, place.label, wanted.modality, wanted.keep, wanted.id_column
    )


def _lines(place: _Place, wanted: _Wanted) -> Source:
    opened = partial(place.files.open, place.path)
    return Lines(place.path, opened, wanted.modality, wanted.keep, wanted.id_column)


def _stdin(place: _Place, wanted: _Wanted) -> Source:
    return Lines("stdin", standard_input(), wanted.modality, wanted.keep, wanted.id_column)


def _pictures(source: Callable[[_Place], Source], place: _Place, wanted: _Wanted) -> Source:
    """A source without columns."""
    if unknown := [*wanted.keep, *filter(None, [wanted.id_column])]:
        raise StartupError(f"{place.path} has no columns, so none that is called {unknown[0]!r}.")
    if wanted.modality == "text":
        raise StartupError(f"{place.path} has pictures, and the modality is text: give texts in a table, or as lines.")
    return source(place)


_parquet: _Opener = partial(_table, Parquet)
_arrow: _Opener = partial(_table, ArrowFile)
_delimited: _Opener = partial(_table, Delimited)
_folder: _Opener = partial(_pictures, lambda place: Folder(place.files, place.path, place.label))
_pattern: _Opener = partial(_pictures, lambda place: Pattern(place.files, place.path))
_file: _Opener = partial(_pictures, lambda place: SingleFile(place.files, place.path))
_address: _Opener = partial(_pictures, lambda place: SingleAddress(place.path))

_OPENERS: Mapping[str, _Opener] = {
    ".tar": _shard,
    ".tar.gz": _shard,
    ".tgz": _shard,
    ".tar.bz2": _shard,
    ".tar.xz": _shard,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".csv": _delimited,
    ".tsv": _delimited,
    ".ndjson": _lines,
    ".jsonl": _lines,
}
"""Suffix → what reads such files. All others are pictures."""
_OF_FOLDERS = (".parquet", ".tar", ".tar.gz", ".tgz", ".arrow", ".feather")
"""Suffixes of what a folder without pictures is read for. A CSV file beside folders of pictures describes them."""
_COLUMN = re.compile(rf"(.+(?:{'|'.join(map(re.escape, _OPENERS))}|/)):([^/:]+)", re.IGNORECASE | re.DOTALL)
_ADDRESS = ("http://", "https://", "data:")


def _suffix(path: str) -> str | None:
    """The longest known suffix of a path."""
    name = path.lower()
    return max((suffix for suffix in _OPENERS if name.endswith(suffix)), key=len, default=None)


def _opener(place: _Place) -> _Opener:
    """What reads it."""
    if place.path == "-":
        return _stdin
    if place.path.startswith(_ADDRESS):
        return _address
    suffix = _suffix(place.path)
    with reading(place.path):
        if place.files.is_folder(place.path):
            return _folder
        if place.files.exists(place.path):
            return _OPENERS[suffix] if suffix else _file
    if MAGIC.search(place.path):
        return _pattern
    raise StartupError(f"{place.path} does not exist.")


def _found(written: str) -> Iterator[_Place]:
    """Yields what an input stands for: braces, patterns of tables and folders of tables are many."""
    if written == "-" or written.startswith(_ADDRESS):
        yield _Place(LocalFiles(), written)
        return
    files = files_of(written)
    with reading(written):
        if files.exists(written):
            yield from _tables_in(_Place(files, written)) if files.is_folder(written) else [_Place(files, written)]
            return
        match = _COLUMN.fullmatch(written)
        pattern, column = match.groups() if match else (written, None)
        for path in expand(pattern):
            place = _Place(files, path, column)
            if files.is_folder(path):
                yield from _tables_in(place)
            elif MAGIC.search(path) and not files.exists(path) and _suffix(path):
                yield from _matching(place)
            else:
                yield place


def _matching(place: _Place) -> Iterator[_Place]:
    empty = True
    for found in glob(place.files, place.path):
        if found.error:
            raise found.error
        empty = False
        yield replace(place, path=found.path)
    if empty:
        raise StartupError(f"no file matches {place.path!r}.")


def _tables_in(folder: _Place) -> Iterator[_Place]:
    """Yields the tables or shards in a folder that has neither pictures nor folders, or else the folder itself.

    With a column, it is a folder of tables, however deep they are.
    """
    names = folder.files.names(folder.path)
    suffixes = {_suffix(name) or posixpath.splitext(name)[1].lower() for name in names}
    kind = next((suffix for suffix in _OF_FOLDERS if suffix in suffixes), None)
    is_flat = not any(name.endswith("/") for name in names) and not suffixes & SUFFIXES
    if not folder.column and not (kind and is_flat):
        yield folder
        return
    empty = True
    for found in walk(folder.files, folder.path):
        if found.error:
            raise found.error
        if _suffix(found.name) in ((kind,) if kind else _OF_FOLDERS):
            empty = False
            yield replace(folder, path=found.path)
    if empty:
        raise StartupError(f"{folder.path} has no tables ({', '.join(_OF_FOLDERS)}).")


def _labelled(places: Sequence[_Place]) -> Sequence[_Place]:
    """They, with labels: their names, or their whole paths if two have one name. What is alone needs one in tables."""
    if len(places) == 1 and _suffix(places[0].path) is None:
        return places
    paths = [place.path.rstrip("/") for place in places]
    names = [posixpath.basename(path) for path in paths]
    labels = names if len(set(names)) == len(names) else paths
    return [replace(place, label=label) for place, label in zip(places, labels, strict=True)]
