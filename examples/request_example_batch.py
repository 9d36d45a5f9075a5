"""Embed pictures, many in one request.

    python examples/request_example_batch.py [file or folder …]

Without a file it draws its own pictures. Needs `httpx`, and a server: `iei serve --demo`.
"""

from __future__ import annotations

import sys
import time

import httpx
import numpy as np
from command_line import at_least_one, load_pictures, parser
from report import cosine_table, explain, timing, total
from sample_pictures import Picture


def main() -> None:
    """Embeds all pictures, batch by batch, and prints how alike they are."""
    options = parser(__doc__)
    options.add_argument("--batch", type=at_least_one, default=32, help="pictures per request (default: %(default)s)")
    arguments = options.parse_args()
    pictures = load_pictures(arguments.paths)
    starts = range(0, len(pictures), arguments.batch)
    batches = [pictures[start : start + arguments.batch] for start in starts]

    started = time.perf_counter()
    with httpx.Client(timeout=120) as client:
        embeddings = np.concatenate([embed(client, arguments.url, batch) for batch in batches])
    seconds = time.perf_counter() - started
    print(f"embeddings: {embeddings.dtype} {embeddings.shape}; {total(len(pictures), seconds)}\n")
    print(cosine_table([picture.name for picture in pictures], embeddings))


def embed(client: httpx.Client, url: str, pictures: list[Picture]) -> np.ndarray:
    """One request. Returns float32[n, dimension], in the order of the pictures."""
    try:
        response = client.post(f"{url}/embed", json={"inputs": [picture.base64 for picture in pictures]})
        response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        sys.exit(explain(error, url, [picture.name for picture in pictures]))
    embeddings = np.array(response.json(), np.float32)
    print(f"{len(pictures)} pictures → {embeddings.shape} in {timing(response)}")
    return embeddings


if __name__ == "__main__":
    main()
