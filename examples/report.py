"""What the examples print: how long the server took, how alike the pictures are, and what went wrong."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import numpy as np

from iei.client import ClientError, InputError, ServerError, Unreachable

TABLE_ROWS = 10
NAME_WIDTH = 28


def show_times() -> None:
    """Prints a line for each request: time as seen from here, and as the server reports it; and what is tried again."""
    log = logging.getLogger("iei.client")
    log.setLevel(logging.DEBUG)
    log.addHandler(logging.StreamHandler(sys.stdout))


def total(count: int, seconds: float) -> str:
    """Time and rate of a whole run."""
    return f"total {seconds * 1e3:.1f} ms, {count / seconds:.1f} pictures per second"


def cosine_table(names: Sequence[str], embeddings: np.ndarray) -> str:
    """How alike the first pictures are: the cosine of each pair. `embeddings`: float32[n, dimension]."""
    shown = embeddings[:TABLE_ROWS].astype(np.float64)
    unit = shown / np.linalg.norm(shown, axis=1, keepdims=True)
    lines = [" " * NAME_WIDTH + "cosine" + "".join(f"{column:>8}" for column in range(1, len(shown) + 1))]
    for row, (name, cosines) in enumerate(zip(names, unit @ unit.T, strict=False), start=1):
        lines.append(f"{row:>4}  {_short(name):<{NAME_WIDTH}}" + "".join(f"{cosine:8.3f}" for cosine in cosines))
    if len(names) > TABLE_ROWS:
        lines.append(f"      (the first {TABLE_ROWS} of {len(names)})")
    return "\n".join(lines)


def explain(error: ClientError | ValueError, names: Sequence[str] = ()) -> str:
    """One sentence on why it failed. `names`: of the pictures."""
    match error:
        case InputError():
            return "; ".join(f"{names[index]}: {message}" for index, message in error.errors.items())
        case ServerError():
            return f"The server answers {error}"
        case Unreachable():
            message = str(error)
            advice = "Start one with `iei serve --demo`, or name another with --url."
            return f"{message[0].upper()}{message[1:]}. {advice}"
        case _:
            return str(error)


def _short(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else "…" + name[1 - NAME_WIDTH :]
