"""The flags of `iei embed` that are no settings."""

from __future__ import annotations

import argparse
from pathlib import Path

from iei.models.spec import MODALITIES

PART_SIZE = 50_000
MAX_ERROR_RATE = 0.05
ENCODINGS = ("float32", "float16", "int8", "uint8", "ubinary")
REPLACED = frozenset({"dimensions"})
"""Settings whose flags mean something else here."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds them, each under the name that `iei.commands.embed` reads."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="folders, patterns, pictures, tables (x.parquet:column, urls.csv:column), shards (a-{000..127}.tar), or - "
        "for paths or NDJSON on stdin",
    )
    add = parser.add_argument_group("output").add_argument
    add(
        "-o",
        "--output",
        default="-",
        metavar="OUT",
        help="a folder of parts, x.parquet, x.npy, x.lance, or - (default): NDJSON",
    )
    add("--encoding", choices=ENCODINGS, default="float32", help="how vectors are stored (default: %(default)s)")
    add("--keep", type=_names, default=(), metavar="COL,…", help="columns of the input that the output has, too")
    add("--thumbnails", type=_natural, default=0, metavar="PIXELS", help="add an image column of small JPEGs")
    add("--dedup", action="store_true", help="one row for each content, not for each copy of it")
    add("--part-size", "--shard-size", type=_positive, default=PART_SIZE, metavar="N", help="items of a part")
    add("--shards", type=_shard, default=(0, 1), metavar="I/N", help="make every Nth part, from part I on (I from 0)")
    add = parser.add_argument_group("what is computed").add_argument
    add("--modality", choices=MODALITIES, help="what strings are (default: as they look)")
    add("--id-column", metavar="COL", help="the column of a table that ids are from (default: id, or numbers)")
    add("--dimensions", type=_positive, metavar="N", help="leading values of each vector that are kept")
    add("--truncate", action="store_true", help="cut texts that are too long for the model")
    add("--server", type=_names, default=(), metavar="URL,URL", help="computed by these servers, not in this process")
    add("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster (docs/ray.md)")
    add("--address", metavar="ADDRESS", help="of the Ray cluster, such as auto (default: one for this job)")
    add = parser.add_argument_group("errors and progress").add_argument
    add("--on-error", choices=("column", "stop"), default="column", help="a bad item has an error, or ends the job")
    add("--errors", type=Path, metavar="FILE", help="write a line of JSON there for each row with an error")
    add("--retry-errors", action="store_true", help="try the items again that have errors in finished parts")
    add(
        "--max-error-rate",
        type=_rate,
        default=MAX_ERROR_RATE,
        metavar="SHARE",
        help="end the job when more rows have errors (default: %(default)s; 1: never)",
    )
    add("--progress", choices=("auto", "json", "none"), default="auto", help="a line on a terminal, or lines of JSON")


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _positive(text: str) -> int:
    number = _natural(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return rate


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(count)
