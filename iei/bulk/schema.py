"""Rows as Arrow tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from iei.bulk.fingerprint import Fingerprint
from iei.bulk.options import Encoding
from iei.bulk.row import Row
from iei.errors import StartupError

KEY = b"iei"
"""Of the schema's metadata: the fingerprint, as JSON."""

OWN_COLUMNS = ("id", "embedding", "width", "height", "sha256", "error", "image")
"""Columns that a row has of itself."""

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""As Hugging Face's datasets have pictures."""

_VALUES: Mapping[Encoding, pa.DataType] = {
    "float32": pa.float32(),
    "float16": pa.float16(),
    "int8": pa.int8(),
    "uint8": pa.uint8(),
    "ubinary": pa.uint8(),
}


def schema_of(
    fingerprint: Fingerprint,
    *,
    dimension: int,
    encoding: Encoding,
    kept: Mapping[str, pa.DataType],
    thumbnails: bool,
) -> pa.Schema:
    """The columns of a job.

    Args:
        fingerprint: what the metadata says of the vectors.
        dimension: values of a vector, before they are packed.
        encoding: how they are stored.
        kept: columns of the input → their types.
        thumbnails: whether there is a column of small pictures.

    Raises:
        StartupError: a kept column has the name of one that rows have anyway.
    """
    if twice := [name for name in kept if name in OWN_COLUMNS]:
        raise StartupError(
            f"--keep {','.join(twice)}: the output has a column of that name already ({', '.join(OWN_COLUMNS)}); "
            "rename it in the input."
        )
    length = dimension // 8 if encoding == "ubinary" else dimension
    fields = [
        pa.field("id", pa.string()),
        pa.field("embedding", pa.list_(_VALUES[encoding], length)),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("sha256", pa.string()),
        pa.field("error", pa.string()),
        *(pa.field(name, kind) for name, kind in kept.items()),
    ]
    if thumbnails:
        fields.append(pa.field("image", IMAGE))
    return pa.schema(fields, metadata={KEY: orjson.dumps(fingerprint)})


def table_of(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Rows as a table.

    Raises:
        StartupError: a kept value is of another type than its column.
    """
    columns: dict[str, Any] = {
        "id": [row.id for row in rows],
        "width": [row.picture and row.picture.width for row in rows],
        "height": [row.picture and row.picture.height for row in rows],
        "sha256": [row.sha256 for row in rows],
        "error": [row.error for row in rows],
        "image": [row.thumbnail and {"bytes": row.thumbnail, "path": row.id} for row in rows],
    }
    arrays = [
        _vectors([row.embedding for row in rows], field.type)
        if field.name == "embedding"
        else pa.array(columns[field.name], field.type)
        if field.name in columns
        else _kept([row.kept.get(field.name) for row in rows], field)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _vectors(vectors: Sequence[np.ndarray[Any, Any] | None], kind: pa.FixedSizeListType) -> pa.Array:
    missing = np.array([vector is None for vector in vectors], bool)
    values = np.zeros((len(vectors), kind.list_size), kind.value_type.to_pandas_dtype())  # room for nulls, too
    for place, vector in enumerate(vectors):
        if vector is not None:
            values[place] = vector
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind, mask=pa.array(missing))


def _kept(values: Sequence[Any], field: pa.Field) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StartupError(
            f"the column {field.name!r}, which is kept, is {field.type} at first and not later: {error}"
        ) from None
