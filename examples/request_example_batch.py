"""Embed pictures, many in one request.

    python examples/request_example_batch.py [file or folder …]

Without a file it draws its own pictures. Needs a server: `iei serve --demo`.
"""

from __future__ import annotations

import sys
import time

from command_line import at_least_one, load_pictures, parser
from report import cosine_table, explain, show_times, total

from iei.client import Client, ClientError


def main() -> None:
    """Embeds all pictures, batch by batch, and prints how alike they are."""
    options = parser(__doc__)
    options.add_argument("--batch", type=at_least_one, default=32, help="pictures per request (default: %(default)s)")
    arguments = options.parse_args()
    pictures = load_pictures(arguments.paths)
    names = [picture.name for picture in pictures]
    show_times()

    started = time.perf_counter()
    try:
        with Client(arguments.url, batch_size=arguments.batch, retry_s=arguments.retry) as client:
            embeddings = client.embed_images([picture.data for picture in pictures])
    except (ClientError, ValueError) as error:
        sys.exit(explain(error, names))
    seconds = time.perf_counter() - started
    print(f"embeddings: {embeddings.dtype} {embeddings.shape}; {total(len(pictures), seconds)}\n")
    print(cosine_table(names, embeddings))


if __name__ == "__main__":
    main()
