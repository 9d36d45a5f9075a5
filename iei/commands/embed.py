"""`iei embed`: pictures and texts to vectors without a server, through the same code as a request."""

from __future__ import annotations

import argparse
import asyncio
import gc
import shutil
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from iei.bulk.embedder import Embedder
from iei.bulk.items import Source
from iei.bulk.job import Job, Rules
from iei.bulk.manifest import OtherJob, Shard
from iei.bulk.options import BulkOptions
from iei.bulk.outputs import FINISHERS, Finisher
from iei.bulk.progress import Progress, progress_for
from iei.bulk.remote import Servers
from iei.bulk.row import Row
from iei.bulk.sources import open_source
from iei.errors import StartupError
from iei.settings import LogSettings, Settings, unknown_variables
from iei.telemetry import logs

WITH_ERRORS = 3
"""Exit status of a job that came to its end, where some rows have errors."""
_NO_FOLDERS = {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".npz", ".npy", ".lance", ".arrow", ".feather", ".txt"}
"""Suffixes of what is not written, and what nobody means as a folder."""


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Embeds what `arguments` name (see `embed_flags`), and shows what has been done.

    Returns:
        The exit status: 0, or `WITH_ERRORS`.

    Raises:
        StartupError: it could not begin or not go on, or was stopped. What was finished stays.
        IEIError: the model does not give what is wanted.
    """
    logs.configure(LogSettings(log_level="warning"))
    logs.warn(unknown_variables())
    if arguments.engine == "ray":
        from iei.commands import embed_on_ray  # late: it needs the extra `ray`

        return WITH_ERRORS if embed_on_ray.run(settings, _options(settings, arguments), arguments) else 0
    output = _Output(arguments)
    options = _options(settings, arguments)
    source = open_source(arguments.inputs, modality=options.modality, keep=options.keep, id_column=arguments.id_column)
    key = settings.remote.client_key
    servers = Servers(arguments.server, options, key.get_secret_value() if key else None) if arguments.server else None
    embedder = Embedder(settings, options, servers)
    progress = _progress(arguments, embedder, source, output)
    for warning in embedder.computer.warnings:
        progress.say(warning)
    job = Job(embedder, source, output.rules, progress)
    gc.freeze()  # libraries and model stay: collections during the job need not go through them
    try:
        rows = asyncio.run(_stoppable(output.write(job), job, output))
    finally:
        gc.unfreeze()  # or torch's libraries say at the end that they were not cleaned up
    summary = _summary(job, source, output, rows)
    progress.end(summary)
    return WITH_ERRORS if summary["errors"] else 0


class _Output:
    """Where rows go."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.name: str = arguments.output
        self.path = Path(arguments.output)
        self.is_lines = self.name == "-"
        self.rules = Rules(
            part_size=arguments.part_size,
            shard=Shard(*arguments.shards),
            on_error=arguments.on_error,
            retry_errors=arguments.retry_errors,
            max_error_rate=arguments.max_error_rate,
            dedup=arguments.dedup,
            errors_file=arguments.errors,
        )
        self._folder_given = _folder_given(arguments.inputs)
        self._finisher: Finisher | None = None if self.is_lines else FINISHERS.get(self.path.suffix.lower())
        self._check()

    @property
    def parts(self) -> Path:
        """The folder of parts."""
        return self.path.with_name(f".{self.path.name}.parts") if self._finisher else self.path

    async def write(self, job: Job) -> int:
        """Runs the job. Returns how many rows there are now."""
        if self.is_lines:
            await job.into_lines(sys.stdout, self._line)
            return job.tally.rows
        await job.into_parts(self.parts)
        if self._finisher:
            await asyncio.to_thread(self._finisher, [self.parts / part.name for part in job.finished], self.path)
            await asyncio.to_thread(shutil.rmtree, self.parts)
        return sum(part.rows for part in job.finished if part.part in self.rules.shard)

    def _line(self, row: Row) -> dict[str, Any]:
        """Pictures are called by their files, as they were given."""
        if row.picture is None:
            return {"id": row.id, "embedding": row.embedding}
        return {"file": str(self._folder_given / row.id), "embedding": row.embedding}

    def _check(self) -> None:
        """Raises StartupError for what can't be, before a model is loaded."""
        suffix = self.path.suffix.lower()
        if not self._finisher and suffix in _NO_FOLDERS and not self.path.is_dir():
            raise StartupError(
                f"{self.name} can't be written: an output is a folder of parts, a file ({', '.join(FINISHERS)}), or - "
                "for lines of JSON."
            )
        if self._finisher and self.path.exists():
            raise StartupError(f"{self.name} is there already: remove it, or write to another file.")
        is_divided = self.rules.shard.count > 1
        if is_divided and (self.is_lines or self._finisher):
            raise StartupError("--shards makes parts for one folder: give a folder as the output.")
        if is_divided and self.rules.dedup:
            raise StartupError(
                "--dedup can't know the contents of other shards: leave it out, and drop rows of equal sha256 later."
            )
        if self.rules.retry_errors and (self.is_lines or not self.parts.is_dir()):
            raise StartupError(f"--retry-errors: there are no parts in {self.parts}.")


def _folder_given(inputs: list[str]) -> Path:
    """What the ids of pictures are below: the folder, if one was given and nothing else."""
    only = Path(inputs[0])
    return only if len(inputs) == 1 and only.is_dir() else Path()


def _options(settings: Settings, arguments: argparse.Namespace) -> BulkOptions:
    return BulkOptions(
        modality=arguments.modality,
        pooling=None if settings.load.pooling == "auto" else settings.load.pooling,
        normalize=settings.requests.normalize,
        dimensions=arguments.dimensions,
        truncate=arguments.truncate,
        encoding=arguments.encoding,
        thumbnails=arguments.thumbnails,
        keep=arguments.keep,
    )


def _progress(arguments: argparse.Namespace, embedder: Embedder, source: Source, output: _Output) -> Progress:
    total = source.total
    return progress_for(
        arguments.progress,
        lambda: embedder.computer.busy,
        None if total is None else output.rules.shard.items(total, output.rules.part_size),
        quiet=output.is_lines,
        out=sys.stderr,
    )


async def _stoppable(work: Coroutine[Any, Any, int], job: Job, output: _Output) -> int:
    """What `work` returns, if neither a signal nor the disk ends it before.

    Raises:
        StartupError: they did.
    """

    def stopped(why: str) -> StartupError:
        done = len(job.finished)
        stays = f" {done} parts are finished: the same command goes on after them." if done else ""
        return StartupError(f"{why}{stays}")

    loop, task, stopped_by = asyncio.get_running_loop(), asyncio.current_task(), list[str]()

    def stop(number: signal.Signals) -> None:
        stopped_by.append(number.name)
        if task:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await work
    except asyncio.CancelledError:
        if not stopped_by:
            raise
        raise stopped(f"stopped by {stopped_by[0]}.") from None
    except OtherJob:
        raise
    except StartupError as error:
        raise stopped(str(error)) from error.__cause__
    except BrokenPipeError:
        raise
    except OSError as error:
        place = error.filename or output.name
        raise stopped(f"{place} can't be written: {error.strerror or error}.") from None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _summary(job: Job, source: Source, output: _Output, rows: int) -> dict[str, Any]:
    tally = job.tally
    causes = dict(tally.causes.most_common())
    if tally.passed_errors:
        causes["in parts that were there"] = tally.passed_errors
    return {
        "out": "stdout" if output.is_lines else output.name,
        "rows": rows,
        "computed": tally.rows,
        "errors": tally.errors + tally.passed_errors,
        "causes": causes,
        "duplicates": tally.duplicates,
        "skipped": source.skipped,
        "seconds": round(tally.seconds, 3),
        "rate": round((tally.rows + tally.duplicates) / max(tally.seconds, 1e-6), 1),
    }
