"""Embed pictures, one in each request, many at a time.

    python examples/request_example_concurrent.py [file or folder …]

The server makes batches of what arrives together, so this is about as fast as sending batches, and a bad picture fails
alone. Without a file it draws its own pictures. Needs `httpx`, and a server: `iei serve --demo`.
"""

from __future__ import annotations

import asyncio
import sys
import time

import httpx
import numpy as np
from command_line import at_least_one, load_pictures, parser
from report import cosine_table, explain, timing, total
from sample_pictures import Picture


def main() -> None:
    """Embeds all pictures, several requests at a time, and prints how alike they are."""
    options = parser(__doc__)
    options.add_argument(
        "--concurrency", type=at_least_one, default=8, help="requests at a time (default: %(default)s)"
    )
    arguments = options.parse_args()
    pictures = load_pictures(arguments.paths)
    started = time.perf_counter()
    try:
        answers = asyncio.run(embed_all(arguments.url, pictures, arguments.concurrency))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        sys.exit(explain(error, arguments.url))
    seconds = time.perf_counter() - started

    good = [(picture.name, answer) for picture, answer in zip(pictures, answers, strict=True) if answer is not None]
    if good:
        names, vectors = zip(*good, strict=True)
        embeddings = np.stack(vectors)
        print(f"embeddings: {embeddings.dtype} {embeddings.shape}; {total(len(good), seconds)}\n")
        print(cosine_table(names, embeddings))
    if len(good) < len(pictures):
        sys.exit(f"{len(pictures) - len(good)} of {len(pictures)} pictures failed.")


async def embed_all(url: str, pictures: list[Picture], concurrency: int) -> list[np.ndarray | None]:
    """float32[dimension] or None for each picture, in their order, with at most `concurrency` requests at a time."""
    at_a_time = asyncio.Semaphore(concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits()) as client:
        return await asyncio.gather(*(embed(client, picture, at_a_time) for picture in pictures))


async def embed(client: httpx.AsyncClient, picture: Picture, at_a_time: asyncio.Semaphore) -> np.ndarray | None:
    """One request for one picture. None, after saying why, if the server refuses it: the others go on."""
    async with at_a_time:
        response = await client.post("/embed", json={"inputs": picture.base64})
    try:
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        print(explain(error, str(client.base_url), [picture.name]), file=sys.stderr)
        return None
    embeddings = np.array(response.json(), np.float32)
    print(f"{picture.name} → {embeddings.shape} in {timing(response)}")
    vector: np.ndarray = embeddings[0]
    return vector


if __name__ == "__main__":
    main()
