"""`iei embed`: embeds image files without a server, through the same code as a request."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import TextIO

import orjson
from tqdm import tqdm

from iei.engine.inprocess import InProcessEngine
from iei.errors import IEIError, InvalidInputs, StartupError
from iei.inputs.preparer import Preparer
from iei.models.catalog import read_catalog
from iei.requests import ImageInput, Options, Vectors
from iei.runtimes import loading
from iei.service import EmbeddingService
from iei.settings import LogSettings, Settings, unknown_variables
from iei.telemetry import logs
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import METRICS

IN_WORK = 64
"""Most files that are processed at the same time: a few batches, so that the model never waits for decoding."""


def run(settings: Settings, paths: Sequence[Path]) -> None:
    """Embeds files with `embed_files`, and writes the result to stdout.

    Raises:
        StartupError: nothing could be done, or some files could not be embedded.
    """
    logs.configure(LogSettings(log_level="warning"))
    logs.warn(unknown_variables())
    if failed := embed_files(settings, paths, sys.stdout):
        raise StartupError(f"{failed} files could not be embedded, see above.")


def embed_files(settings: Settings, paths: Sequence[Path], out: TextIO) -> int:
    """Writes one line of JSON for each image, `{"file": …, "embedding": […]}`, in order.

    A file that can't be embedded is reported on stderr, and the others are still embedded.

    Returns:
        The number of files that could not be embedded.

    Raises:
        StartupError: a path does not exist, or the model can't be loaded.
    """
    files = list(_files(paths))
    service = _service(settings)

    async def all_of_them() -> int:
        failed = 0
        with tqdm(total=len(files), unit="picture", disable=not sys.stderr.isatty()) as progress:
            async with aclosing(_embedded(service, files)) as vectors:
                async for file, vector in vectors:
                    progress.update()
                    if isinstance(vector, str):
                        failed += 1
                        tqdm.write(f"iei: {file}: {vector}", file=sys.stderr)
                    else:
                        line = {"file": str(file), "embedding": vector}
                        out.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
        return failed

    return asyncio.run(all_of_them())


def _service(settings: Settings) -> EmbeddingService:
    """The service of a worker, with the model in this process."""
    catalog = read_catalog(settings.models)
    request, *_ = catalog.load_requests(settings.engine.devices[0], settings.load)
    preparer = Preparer(settings.inputs, settings.inputs.threads(settings.server.workers))
    engine = InProcessEngine(loading.load(request))
    return EmbeddingService(engine, catalog, preparer, settings.requests, devices=1, counters=Counters(METRICS))


async def _embedded(
    service: EmbeddingService, files: Sequence[Path]
) -> AsyncGenerator[tuple[Path, Vectors | str], None]:
    """Yields each file with its vector or its error message, in order; at most `IN_WORK` are processed at a time."""

    async def one(file: Path) -> Vectors | str:
        try:
            data = await asyncio.to_thread(file.read_bytes)
            return (await service.embed([ImageInput(data)], Options())).done[0].vector
        except InvalidInputs as error:
            return str(error.errors[0])
        except (IEIError, OSError) as error:
            return str(error)

    await service.start()
    coming = iter(files)
    in_work: deque[tuple[Path, asyncio.Task[Vectors | str]]] = deque()
    try:
        while True:
            in_work.extend((file, asyncio.create_task(one(file))) for file in islice(coming, IN_WORK - len(in_work)))
            if not in_work:
                return
            file, task = in_work.popleft()
            yield file, await task
    finally:  # the consumer may have stopped early
        for _, task in in_work:
            task.cancel()
        await asyncio.gather(*(task for _, task in in_work), return_exceptions=True)
        await service.stop()


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    """The files among `paths`, and all files below the folders among them."""
    for path in paths:
        if not path.exists():
            raise StartupError(f"{path} does not exist.")
        yield from sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
