"""The actor of Ray Data: tables of pictures or texts in, tables of vectors out, as `iei embed` makes them.

It needs no Ray, so it serves Daft and Spark as well (docs/ray.md).
"""

from __future__ import annotations

import sys
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import pyarrow as pa

from iei.bulk import embedder
from iei.bulk.options import BulkOptions
from iei.errors import StartupError
from iei.machine import cores
from iei.ray.arguments import settings_of, share_of
from iei.settings import SETTINGS

OPTIONS = frozenset(field.name for field in fields(BulkOptions))


class Embedder:
    """Embeds tables, one after the other, with a model that is loaded once.

    Bad pictures raise nothing: their rows have an `error`. (Of a batch that raises, Ray Data would drop all rows.)
    Vectors are Arrow's own lists of a fixed size, which readers of Parquet see as vectors.

    Args:
        model: hub id or folder. Default: the environment's.
        column: of the pictures or texts. Default: see `iei.bulk.embedder.Embedder.table`.
        id_column: what rows are called. Default: `id` or else `path`, if there is such a column.
        **arguments: fields of `BulkOptions` (`encoding`, `dimensions`, `keep` …), and settings of IEI by name.

    Raises:
        StartupError: there is no such argument, or the model can't be loaded.
    """

    def __init__(
        self, model: str | None = None, *, column: str | None = None, id_column: str | None = None, **arguments: Any
    ) -> None:
        for name in arguments:
            if name not in OPTIONS and name not in SETTINGS:
                near = get_close_matches(name, [*OPTIONS, *SETTINGS], n=1)
                raise StartupError(f"{name} is no argument{f': did you mean {near[0]}?' if near else '.'}")
        options = BulkOptions(**{name: value for name, value in arguments.items() if name in OPTIONS})
        given = {name: value for name, value in arguments.items() if name not in OPTIONS}
        settings = share_of(settings_of({**({"model": model} if model else {}), **given}), *_share())
        self._columns = column, id_column
        self._embedder = embedder.Embedder(settings, options)

    def __call__(self, table: pa.Table) -> pa.Table:
        """A row for each row of `table`, in its order.

        Raises:
            StartupError: the table has no such columns.
            IEIError: nothing can be embedded any more.
        """
        return self._embedder.table(table, *self._columns)

    def close(self) -> None:
        """Ends its threads; the process that it is in ends them as well."""
        self._embedder.close()


def _share() -> tuple[float, float]:
    """Cores and GPUs of this process: those that Ray gave this actor, or else all cores and no GPU."""
    ray = sys.modules.get("ray")  # a process that has not imported it is none of its actors
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return cores(), 0.0
    given = ray.get_runtime_context().get_assigned_resources()
    return given.get("CPU", 0.0), given.get("GPU", 0.0)
