"""Bulk jobs on a cluster: Ray Data reads the inputs, actors embed them, and every node writes its parts.

Rows are those of one machine's job; which part has which row is Ray's to say.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.dataset as pads
import ray
from PIL import Image
from ray.data import ActorPoolStrategy, Dataset

from iei.bulk.options import BulkOptions
from iei.errors import StartupError
from iei.inputs.decode import FORMATS
from iei.ray.embedder import Embedder
from iei.ray.notes import Notes
from iei.settings import Settings

BATCH = 256
"""Rows that an actor gets at a time: a few batches of the model, so that decoding seldom waits for the next table."""
SUFFIXES = sorted(suffix.removeprefix(".") for suffix, name in Image.EXTENSION.items() if name in FORMATS)
"""Of files that are pictures."""


def embed(
    dataset: Dataset,
    model: str | None = None,
    *,
    actors: int | tuple[int, int] = 1,
    batch_size: int = BATCH,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    resources: Mapping[str, float] | None = None,
    **arguments: Any,
) -> Dataset:
    """The rows of `dataset`, embedded: `map_batches` with what `Embedder` needs.

    Args:
        dataset: has a column of pictures or texts.
        model: hub id or folder. Default: the environment's, on each node.
        actors: how many there are, or the fewest and the most: as many as there are GPUs, or as cores allow.
        batch_size: rows that an actor gets at a time.
        num_cpus: cores of an actor, and the threads of its forward and of its decoding.
        num_gpus: GPUs of an actor, or a part of one.
        resources: Ray's custom resources of an actor, by name.
        **arguments: of `Embedder`.
    """
    fewest, most = (actors, actors) if isinstance(actors, int) else actors
    return dataset.map_batches(
        Embedder,
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=ActorPoolStrategy(min_size=fewest, max_size=most),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        resources=dict(resources or {}),
        udf_modifying_row_count=False,
        fn_constructor_kwargs={"model": model, **arguments},
    )


@dataclass(frozen=True, slots=True)
class Job:
    """What `iei embed --engine ray` says besides the model and `BulkOptions`."""

    inputs: Sequence[str]
    """All of one kind: folders and files of pictures, or tables `x.parquet[:column]`, `x.csv:column`, or shards."""
    out: str
    """A folder, or a URL of one; all nodes must see it."""
    id_column: str | None = None
    address: str | None = None
    """Of the cluster; `auto` finds the one of this machine. None: a cluster of this machine alone, for this job."""
    actors: int | tuple[int, int] | None = None
    """None: as many as there are GPUs, or else cores."""
    rows_per_file: int | None = None
    """The least, but for the last ones. None: as tasks have them."""


def run(settings: Settings, options: BulkOptions, job: Job) -> tuple[int, int]:
    """Reads, embeds and writes, and returns when all is written.

    Started again, it goes on with the rows that are not written yet: their ids are noted in the folder of the result.

    Returns:
        How many rows there are now, and how many of them have an error.

    Raises:
        StartupError: the inputs are of several kinds, or lack a column; or the folder has another job's rows.
    """
    ray.init(job.address, ignore_reinit_error=True)
    inputs = read(job.inputs, id_column=job.id_column)
    said = {**_said(settings), **asdict(options)}
    notes = Notes(job.out)
    notes.check({"ids": inputs.unique, **said})
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    most = gpus or max(1, int(resources.get("CPU", 1)) - 1)  # of cores, one reads and writes
    rows = embed(
        inputs.dataset,
        actors=job.actors or (1, most),
        num_gpus=1.0 if gpus else 0.0,
        **{**said, "keep": tuple(dict.fromkeys((*options.keep, *inputs.kept)))},
        column=inputs.column,
        id_column="id",
    )
    rows.context.checkpoint_config = notes.checkpoint(inputs.unique) if inputs.unique else None
    rows.write_parquet(job.out, compression="zstd", min_rows_per_file=job.rows_per_file)
    written = pads.dataset(job.out)
    return written.count_rows(), written.count_rows(filter=pc.field("error").is_valid())


def _said(settings: Settings) -> dict[str, Any]:
    """The settings that something has set, by name: nodes have environments of their own."""
    groups = (getattr(settings, name) for name in Settings.model_fields)
    return {name: getattr(group, name) for group in groups for name in group.model_fields_set}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a reader of Ray Data gives."""

    dataset: Dataset
    """Has a column `id`."""
    column: str | None
    """The one that is embedded. None: it is found by its name."""
    unique: str | None
    """The column of the reader that tells rows apart, which the output must have, too, for resuming."""

    @property
    def kept(self) -> tuple[str, ...]:
        """What the output must keep so that a job can go on."""
        return (self.unique,) if self.unique not in (None, "id") else ()


def read(inputs: Sequence[str], *, id_column: str | None = None) -> Inputs:
    """The inputs of `iei embed`, by Ray Data's own readers, with the ids that a job of one machine gives them.

    Raises:
        StartupError: they are of several kinds, or need `id_column`.
    """
    found = [_COLUMN.fullmatch(each) for each in inputs]
    kinds = {match[2].lower() if match else "" for match in found}
    columns = {match[3] for match in found if match}
    if len(kinds) != 1 or len(columns) > 1:
        raise StartupError("with --engine ray, all inputs are of one kind, and their column has one name.")
    paths = [match[1] if match else each for match, each in zip(found, inputs, strict=True)]
    return _READERS[kinds.pop()](paths, columns.pop() if columns else None, id_column)


_COLUMN = re.compile(r"(.+(\.parquet|\.csv|\.tsv|\.tar))(?::([^/:]+))?", re.IGNORECASE | re.DOTALL)


def _pictures(paths: list[str], _: str | None, id_column: str | None) -> Inputs:
    if id_column:
        raise StartupError(f"files of pictures have no columns, so none that is called {id_column!r}.")
    dataset = ray.data.read_binary_files(paths, include_paths=True, file_extensions=SUFFIXES)
    folder = paths[0].rstrip("/") if len(paths) == 1 else ""
    return Inputs(dataset.map_batches(partial(_below, folder), batch_format="pyarrow"), "bytes", "path")


def _below(folder: str, table: pa.Table) -> pa.Table:
    """With ids: paths below the folder, or whole ones."""
    prefix = f"{folder.partition('://')[2] or folder}/"
    return table.append_column(
        "id", pa.array([path.as_py().removeprefix(prefix) for path in table["path"]], pa.string())
    )


def _table(reader: Callable[..., Dataset], paths: list[str], column: str | None, id_column: str | None) -> Inputs:
    dataset = reader(paths)
    names = dataset.schema().names
    ids = id_column or ("id" if "id" in names else None)
    if ids is None or ids not in names:
        raise StartupError(
            f"there is no column {ids or 'id'!r}: name one with --id-column, as rows have no numbers on a cluster; "
            f"there are: {', '.join(names)}."
        )
    return Inputs(dataset.map_batches(partial(_called, ids), batch_format="pyarrow"), column, ids)


def _called(ids: str, table: pa.Table) -> pa.Table:
    """With ids from that column, as strings."""
    column = pc.cast(table[ids], pa.string())
    others = table.drop_columns("id") if "id" in table.column_names else table
    return others.append_column("id", column)


def _shards(paths: list[str], column: str | None, id_column: str | None) -> Inputs:
    if id_column:
        raise StartupError(f"ids of samples are their keys: shards have no column {id_column!r}.")
    dataset = ray.data.read_webdataset(paths, decoder=None, include_paths=True)
    wanted = [column] if column else SUFFIXES
    return Inputs(dataset.map_batches(partial(_sampled, wanted), batch_format="pyarrow"), "image", None)


def _sampled(extensions: Sequence[str], table: pa.Table) -> pa.Table:
    """The picture of each sample, whatever its extension is, and shard/key as its id."""
    pictures = [pc.cast(table[name], pa.binary()) for name in extensions if name in table.column_names]
    named = zip(table["path"].to_pylist(), table["__key__"].to_pylist(), strict=True)
    ids = [f"{posixpath.basename(path)}/{key}" for path, key in named]
    empty = pa.nulls(len(table), pa.binary())
    table = table.append_column("image", pc.coalesce(*pictures, empty))
    return table.append_column("id", pa.array(ids, pa.string()))


_READERS: Mapping[str, Callable[[list[str], str | None, str | None], Inputs]] = {
    "": _pictures,
    ".parquet": partial(_table, ray.data.read_parquet),
    ".csv": partial(_table, ray.data.read_csv),
    ".tsv": partial(_table, partial(ray.data.read_csv, parse_options=pacsv.ParseOptions(delimiter="\t"))),
    ".tar": _shards,
}
"""Suffix → how such inputs are read."""
