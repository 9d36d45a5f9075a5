"""Arrow tables as items, for programs that have their own readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from iei.bulk.items import Broken, Content, Encoded, Item, Link, Stored, Text
from iei.bulk.options import BulkOptions
from iei.errors import InvalidInput, StartupError
from iei.models.spec import Modality

CONTENTS = ("image", "bytes", "text", "url", "path")
"""Columns that are embedded where none is named, the preferred one first."""
IDS = ("id", "path", "url")
"""Columns that rows are called by where none is named."""


def items_of(
    table: pa.Table, column: str | None, id_column: str | None, options: BulkOptions, modalities: Sequence[Modality]
) -> Iterator[Item]:
    """The rows of a table as items. Arguments and errors: see `Embedder.table`."""
    name = column or _first(table, CONTENTS, "to embed")
    for wanted in (name, *options.keep, *([id_column] if id_column else [])):
        if wanted not in table.column_names:
            raise StartupError(f"there is no column {wanted!r}; there are: {', '.join(table.column_names)}.")
    kind = options.modality or modalities[0]
    content = _content_of(table.schema.field(name), kind)
    ids = id_column or next((each for each in IDS if each in table.column_names), None)
    return _items(table, name, ids, content, options.keep)


def kept_types(table: pa.Table, keep: Sequence[str]) -> dict[str, pa.DataType]:
    """Columns that are kept → their types."""
    return {name: table.schema.field(name).type for name in keep}


def _first(table: pa.Table, names: Sequence[str], what: str) -> str:
    found = next((name for name in names if name in table.column_names), None)
    if found is None:
        raise StartupError(
            f"there is no column {what}: name one of {', '.join(table.column_names)} (without a name, "
            f"{', '.join(names)} are looked for)."
        )
    return found


def _items(
    table: pa.Table, name: str, ids: str | None, content: Callable[[Any], Content], keep: Sequence[str]
) -> Iterator[Item]:
    number = 0
    for batch in table.to_batches(max_chunksize=64):
        columns = {each: batch.column(each) for each in {name, *keep, *([ids] if ids else [])}}
        for place in range(len(batch)):
            value = columns[name][place].as_py()
            called = columns[ids][place].as_py() if ids else None
            yield Item(
                str(number if called is None else called),
                Broken(InvalidInput("is null")) if value is None else content(value),
                {each: columns[each][place].as_py() for each in keep},
            )
            number += 1


def _content_of(field: pa.Field, kind: Modality) -> Callable[[Any], Content]:
    if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
        return Encoded
    if pa.types.is_struct(field.type):
        return _of_struct
    if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
        return Text if kind == "text" else _of_address
    raise StartupError(f"the column {field.name!r} is {field.type}, neither bytes nor strings nor {{bytes, path}}.")


def _of_struct(value: Mapping[str, Any]) -> Content:
    if value.get("bytes") is not None:
        return Encoded(value["bytes"])
    if value.get("path") is not None:
        return _of_address(value["path"])
    return Broken(InvalidInput("has neither bytes nor a path"))


def _of_address(value: str) -> Content:
    return Link(value) if value.lower().startswith(("http://", "https://")) else Stored(Path(value).read_bytes)
