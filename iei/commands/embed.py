"""`iei embed`: files to vectors without a server, through the same rooms as a request."""

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
from iei.models.catalog import catalog, load_requests
from iei.runtimes.torch import runtime as torch
from iei.service import Embedder, ImageInput, Options, Vectors
from iei.settings import Settings

IN_WORK = 64
"""Files that are being decoded or computed at a time: a few batches, so that the model never waits."""


def embed_files(settings: Settings, paths: Sequence[Path], out: TextIO) -> int:
    """Writes one line of JSON for each picture, `{"file": …, "embedding": […]}`, in order.

    A file that is no picture is named on stderr and costs the others nothing. Returns how many there were of those.

    Raises:
        StartupError: a path does not exist, or the model can't be loaded.
    """
    files = list(_files(paths))
    embedder = Embedder(
        settings, catalog(settings), InProcessEngine(torch.load(load_requests(settings, settings.devices[0])[0]))
    )

    async def run() -> int:
        failed = 0
        with tqdm(total=len(files), unit="picture", disable=not sys.stderr.isatty()) as progress:
            async with aclosing(_embedded(embedder, files)) as vectors:
                async for file, vector in vectors:
                    progress.update()
                    if isinstance(vector, str):
                        failed += 1
                        tqdm.write(f"iei: {file}: {vector}", file=sys.stderr)
                    else:
                        line = {"file": str(file), "embedding": vector}
                        out.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
        return failed

    return asyncio.run(run())


async def _embedded(embedder: Embedder, files: Sequence[Path]) -> AsyncGenerator[tuple[Path, Vectors | str], None]:
    """Each file with its vector, or with what is wrong with it; in order, a window of them in work at a time."""

    async def one(file: Path) -> Vectors | str:
        try:
            data = await asyncio.to_thread(file.read_bytes)
            return (await embedder.embed([ImageInput(data)], Options())).items[0].vector
        except InvalidInputs as error:
            return str(error.errors[0])
        except (IEIError, OSError) as error:
            return str(error)

    await embedder.start()
    coming = iter(files)
    in_work: deque[tuple[Path, asyncio.Task[Vectors | str]]] = deque()
    try:
        while True:
            in_work.extend((file, asyncio.create_task(one(file))) for file in islice(coming, IN_WORK - len(in_work)))
            if not in_work:
                return
            file, task = in_work.popleft()
            yield file, await task
    finally:  # nobody may be left to read it
        for _, task in in_work:
            task.cancel()
        await asyncio.gather(*(task for _, task in in_work), return_exceptions=True)
        await embedder.stop()


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    """Files as they are; of a folder, all the files below it."""
    for path in paths:
        if not path.exists():
            raise StartupError(f"{path} does not exist.")
        yield from sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
