"""What the examples print: how long the server took, how alike the pictures are, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import numpy as np

TIMING_HEADERS = {
    "total": "x-total-time",
    "preprocess": "x-preprocess-time",
    "queue": "x-queue-time",
    "inference": "x-inference-time",
}
TABLE_ROWS = 10
NAME_WIDTH = 28


def timing(response: httpx.Response) -> str:
    """Time as seen from here, and as the server reports it in its headers: `34.1 ms (server: total 30.2, …)`."""
    reported = [
        f"{name} {response.headers[header]}" for name, header in TIMING_HEADERS.items() if header in response.headers
    ]
    seen = f"{response.elapsed.total_seconds() * 1e3:.1f} ms"
    return f"{seen} (server: {', '.join(reported)})" if reported else seen


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


def explain(error: httpx.HTTPError | httpx.InvalidURL, url: str, names: Sequence[str] = ()) -> str:
    """One sentence on why a request failed. `names`: of the pictures in it."""
    match error:
        case httpx.HTTPStatusError():
            return f"The server answers {error.response.status_code}: {_reason(error.response, names)}"
        case httpx.TimeoutException():
            return f"The server at {url} did not answer in time."
        case httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return f"{url} is not the address of a server: give --url a form like http://localhost:8000."
        case httpx.ConnectError():
            return f"No server answers at {url}: start one with `iei serve --demo`, or name another with --url."
        case _:
            return f"The connection to {url} broke: {error!r}."


def _reason(response: httpx.Response, names: Sequence[str]) -> str:
    """The message of an error response; where it speaks of `inputs[3]`, it is the fourth picture that is meant."""
    try:
        reason = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200] or response.reason_phrase
    for index, name in enumerate(names):
        reason = reason.replace(f"inputs[{index}]", name)
    return reason


def _short(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else "…" + name[1 - NAME_WIDTH :]
