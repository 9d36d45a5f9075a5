"""Find pictures by words, with a model that puts texts and pictures into one space.

    python examples/search_images.py [file or folder …] [--query TEXT …]

Without a query it asks for some, one a line. Without a file it draws its own pictures, and looks for those. Needs
`httpx` and `numpy`, and a server with a CLIP or a SigLIP: `iei serve --model openai/clip-vit-base-patch32`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import httpx
import numpy as np
from command_line import at_least_one, load_pictures, parser
from report import explain, total
from sample_pictures import Picture

SAMPLE_QUERIES = ("a red disc", "a chessboard", "the sun over the sea in the evening", "green stripes")


def main() -> None:
    """Embeds the pictures once, and then each query."""
    options = parser(__doc__)
    options.add_argument("--query", action="append", metavar="TEXT", help="what to look for; may be given repeatedly")
    options.add_argument("--top", type=at_least_one, default=3, help="pictures per query (default: %(default)s)")
    options.add_argument("--batch", type=at_least_one, default=32, help="pictures per request (default: %(default)s)")
    arguments = options.parse_args()
    pictures = load_pictures(arguments.paths)
    with httpx.Client(base_url=arguments.url, timeout=120) as client:
        try:
            check_model(client)
            search(client, pictures, arguments)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            sys.exit(explain(error, arguments.url, [picture.name for picture in pictures]))


def check_model(client: httpx.Client) -> None:
    """Before a thousand pictures are sent: does the served model take texts, too?"""
    response = client.post("/embed", json={"inputs": "a photo", "modality": "text", "pooling": "pooler"})
    if response.status_code == 422:
        sys.exit(
            f"The served model can't search pictures by words ({response.json()['error']}): "
            "start the server with a CLIP or a SigLIP, such as openai/clip-vit-base-patch32."
        )
    response.raise_for_status()


def search(client: httpx.Client, pictures: list[Picture], arguments: argparse.Namespace) -> None:
    """Prints the best pictures of each query."""
    started = time.perf_counter()
    starts = range(0, len(pictures), arguments.batch)
    index = np.concatenate([embed_pictures(client, pictures[at : at + arguments.batch]) for at in starts])
    print(f"index: {index.dtype} {index.shape}; {total(len(pictures), time.perf_counter() - started)}")
    for query in queries(arguments):
        print(f"\n{query}")
        # All vectors have length 1: their products are cosines.
        scores = index @ embed(client, [query], "text")[0]
        for place in np.argsort(-scores)[: arguments.top]:
            print(f"  {scores[place]:6.3f}  {pictures[place].name}")


def queries(arguments: argparse.Namespace) -> Iterator[str]:
    """The queries of the command line, or samples for the drawings, or lines of stdin."""
    if arguments.query:
        yield from arguments.query
    elif not arguments.paths:
        yield from SAMPLE_QUERIES
    else:
        print("What do you look for? One a line; an empty line ends.", file=sys.stderr)
        for line in sys.stdin:
            if not line.strip():
                return
            yield line.strip()


def embed_pictures(client: httpx.Client, pictures: list[Picture]) -> np.ndarray:
    """float32[n, dimension] of `pictures`, of length 1."""
    return embed(client, [picture.base64 for picture in pictures], "image")


def embed(client: httpx.Client, inputs: list[str], modality: str) -> np.ndarray:
    """One request. Returns float32[n, dimension], in the space that texts and pictures share, of length 1."""
    body = {"inputs": inputs, "modality": modality, "pooling": "pooler", "normalize": True, "truncate": True}
    response = client.post("/embed", json=body)
    response.raise_for_status()
    return np.array(response.json(), np.float32)


if __name__ == "__main__":
    main()
