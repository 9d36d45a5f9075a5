"""The types of columns that are kept of the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import pyarrow as pa

from iei.bulk.items import Item
from iei.errors import StartupError

LOOKED_AT = 100
"""Items whose values decide. They are the input's first on every machine, so all parts have the same types."""


def with_types(items: Iterator[Item], keep: Sequence[str]) -> tuple[dict[str, pa.DataType], Iterator[Item]]:
    """The type of each column that is kept, and all of the items.

    A column without any value among the first items is of strings.

    Raises:
        StartupError: the values of a column are of types that have nothing in common.
    """
    if not keep:
        return {}, items
    first = list(islice(items, LOOKED_AT))
    return {name: _type(name, [item.kept.get(name) for item in first]) for name in keep}, chain(first, items)


def _type(name: str, values: Sequence[object]) -> pa.DataType:
    try:
        found = pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StartupError(f"the column {name!r} can't be kept: its values are of different types ({error}).") from None
    return pa.string() if pa.types.is_null(found) else found
