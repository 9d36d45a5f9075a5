"""Embed pictures, one in each request, many at a time.

    python examples/request_example_concurrent.py [file or folder …]

The server makes batches of what arrives together, so this is about as fast as sending batches, and a bad picture fails
alone. Without a file it draws its own pictures. Needs a server: `iei serve --demo`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

import numpy as np
from command_line import at_least_one, load_pictures, parser
from report import cosine_table, explain, show_times, total
from sample_pictures import Picture

from iei.client import AsyncClient, ClientError, InputError


def main() -> None:
    """Embeds all pictures, several requests at a time, and prints how alike they are."""
    options = parser(__doc__)
    options.add_argument(
        "--concurrency", type=at_least_one, default=8, help="requests at a time (default: %(default)s)"
    )
    arguments = options.parse_args()
    pictures = load_pictures(arguments.paths)
    show_times()

    started = time.perf_counter()
    try:
        answers = asyncio.run(embed_all(arguments, pictures))
    except (ClientError, ValueError) as error:
        sys.exit(explain(error))
    seconds = time.perf_counter() - started

    good = [(picture.name, answer) for picture, answer in zip(pictures, answers, strict=True) if answer is not None]
    if good:
        names, vectors = zip(*good, strict=True)
        embeddings = np.stack(vectors)
        print(f"embeddings: {embeddings.dtype} {embeddings.shape}; {total(len(good), seconds)}\n")
        print(cosine_table(names, embeddings))
    if len(good) < len(pictures):
        sys.exit(f"{len(pictures) - len(good)} of {len(pictures)} pictures failed.")


async def embed_all(arguments: argparse.Namespace, pictures: list[Picture]) -> list[np.ndarray | None]:
    """float32[dimension] or None for each picture, in their order."""
    async with AsyncClient(arguments.url, concurrency=arguments.concurrency, retry_s=arguments.retry) as client:
        return await asyncio.gather(*(embed(client, picture) for picture in pictures))


async def embed(client: AsyncClient, picture: Picture) -> np.ndarray | None:
    """One request for one picture. None, after saying why, if the server refuses it: the others go on."""
    try:
        embeddings = await client.embed_images(picture.data)
    except InputError as error:
        print(explain(error, [picture.name]), file=sys.stderr)
        return None
    vector: np.ndarray = embeddings[0]
    return vector


if __name__ == "__main__":
    main()
