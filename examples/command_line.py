"""What the examples are told: which pictures, and which server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from sample_pictures import Picture, drawings

EXTENSIONS = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all examples have: `paths`, `--url` and `--retry`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="file or folder", help="default: some drawings")
    parser.add_argument("--url", default="http://localhost:8000", help="the server (default: %(default)s)")
    parser.add_argument(
        "--retry",
        type=float,
        default=10,
        metavar="SECONDS",
        help="how long to try again while the server is busy or away (default: %(default)s)",
    )
    return parser


def at_least_one(text: str) -> int:
    """An argument that counts something: an integer from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def load_pictures(paths: list[Path]) -> list[Picture]:
    """The named files and the pictures in the named folders, or drawings when nothing is named."""
    if not paths:
        return drawings()
    try:
        pictures = [Picture(str(file), file.read_bytes()) for path in paths for file in _files(path)]
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}.")
    if not pictures:
        sys.exit(f"No picture in {', '.join(map(str, paths))}.")
    return pictures


def _files(path: Path) -> Iterator[Path]:
    """A file that is named is sent as it is; in a folder, the extension decides."""
    if not path.is_dir():
        yield path
        return
    for file in sorted(file for file in path.iterdir() if file.is_file()):
        if file.suffix.lower() in EXTENSIONS:
            yield file
        else:
            print(f"skipped {file}: {file.suffix or 'no extension'} is not one of a picture", file=sys.stderr)
