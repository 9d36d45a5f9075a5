"""`iei embed --engine ray`: the same job on a Ray cluster."""

from __future__ import annotations

import argparse
import os
import sys
import time

from iei.bulk.options import BulkOptions
from iei.commands.embed_flags import MAX_ERROR_RATE
from iei.errors import StartupError
from iei.settings import Settings

ALONE = {
    "dedup": ("--dedup", False),
    "shards": ("--shards", (0, 1)),
    "retry_errors": ("--retry-errors", False),
    "on_error": ("--on-error", "column"),
    "errors": ("--errors", None),
    "max_error_rate": ("--max-error-rate", MAX_ERROR_RATE),
    "server": ("--server", ()),
}
"""What only a job of one machine does: name → its flag, and its default."""


def run(settings: Settings, options: BulkOptions, arguments: argparse.Namespace) -> int:
    """Embeds on the cluster what `arguments` name (see `embed_flags`).

    Returns:
        How many rows have errors.

    Raises:
        StartupError: it could not begin or not go on.
    """
    for name, (flag, default) in ALONE.items():
        if getattr(arguments, name) != default:
            raise StartupError(f"{flag} has no meaning with --engine ray.")
    if arguments.output == "-" or arguments.output.endswith((".parquet", ".npy", ".lance")):
        raise StartupError("with --engine ray, the output is a folder (-o) that all nodes see, or a URL of one.")
    if arguments.address is None:
        # The nodes have this Python. Under `uv run`, Ray would make an environment of its own for each worker.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        from iei.ray.data import Job
        from iei.ray.data import run as run_on_ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise StartupError("--engine ray needs the extra: pip install 'image-embedding-inference[ray]'.") from None
    job = Job(
        inputs=arguments.inputs,
        out=arguments.output,
        id_column=arguments.id_column,
        address=arguments.address,
        rows_per_file=arguments.part_size,
    )
    began = time.monotonic()
    rows, errors = run_on_ray(settings, options, job)
    seconds = time.monotonic() - began
    print(f"iei: {rows} rows in {arguments.output}, {errors} of them with errors; {seconds:.0f} s", file=sys.stderr)
    return errors
