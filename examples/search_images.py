"""Find pictures by words, with a model that puts texts and pictures into one space.

    python examples/search_images.py [file or folder …] [--query TEXT …]

Without a query it asks for some, one a line. Without a file it draws its own pictures, and looks for those. Needs a
server with a CLIP or a SigLIP: `iei serve --model google/siglip-base-patch16-224`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import numpy as np
from command_line import at_least_one, load_pictures, parser
from report import explain, total
from sample_pictures import Picture

from iei.client import Client, ClientError, ServerError

SAMPLE_QUERIES = ("a red disc", "a chessboard", "the sun over the sea in the evening", "green stripes")


def main() -> None:
    """Embeds the pictures once, and then each query."""
    options = parser(__doc__)
    options.add_argument("--query", action="append", metavar="TEXT", help="what to look for; may be given repeatedly")
    options.add_argument("--top", type=at_least_one, default=3, help="pictures per query (default: %(default)s)")
    options.add_argument("--batch", type=at_least_one, default=32, help="pictures per request (default: %(default)s)")
    arguments = options.parse_args()
    pictures = load_pictures(arguments.paths)
    try:
        with Client(arguments.url, batch_size=arguments.batch, retry_s=arguments.retry) as client:
            check_model(client)
            search(client, pictures, arguments)
    except (ClientError, ValueError) as error:
        sys.exit(explain(error, [picture.name for picture in pictures]))


def check_model(client: Client) -> None:
    """Before a thousand pictures are sent: does the served model take texts, too?"""
    try:
        client.embed_texts("a photo", pooling="pooler")
    except ServerError as error:
        if error.status != 422:
            raise
        sys.exit(
            f"The served model can't search pictures by words ({error.message}): "
            "start the server with a CLIP or a SigLIP, such as google/siglip-base-patch16-224."
        )


def search(client: Client, pictures: list[Picture], arguments: argparse.Namespace) -> None:
    """Prints the best pictures of each query."""
    started = time.perf_counter()
    # Pictures and texts are in one space, and all vectors have length 1: their products are cosines.
    index = client.embed_images(
        [picture.data for picture in pictures], pooling="pooler", normalize=True, progress=sys.stderr.isatty()
    )
    print(f"index: {index.dtype} {index.shape}; {total(len(pictures), time.perf_counter() - started)}")
    for query in queries(arguments):
        print(f"\n{query}")
        scores = index @ client.embed_texts(query, pooling="pooler", normalize=True, truncate=True)[0]
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


if __name__ == "__main__":
    main()
