"""What came of a request → its vectors, or the error that says what was wrong."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias, TypedDict, cast

import httpx2
import numpy as np
import numpy.typing as npt

from iei.client.errors import ClientError, InputError, ServerError, Unreachable
from iei.client.retries import Outcome

Vectors: TypeAlias = npt.NDArray[np.float32]

NPY = "application/x-npy"
log = logging.getLogger("iei.client")
_BAD_INPUT = re.compile(r"(?:^|; )inputs\[(\d+)\](?: \(\w+\))?: ")
"""Before each item's own message in an error; a file has its name in brackets, which the client chose."""


class Info(TypedDict):
    """What `/info` says of a model and of the server: the fields that programs need. There are more."""

    model_name: str
    model_id: str
    modalities: list[str]
    """`image`, `text` or both."""
    dim: int
    """Values of a vector, where the call names no pooling and no dimensions."""
    pooling: str
    """The pooling that such a call gets."""
    poolings: dict[str, int]
    """Every pooling that the model offers, with the values of its vectors."""
    normalize: dict[str, bool]
    """By modality: whether vectors have length 1 where the call does not say."""
    prompts: dict[str, str]
    max_inputs: int
    max_body_bytes: int
    version: str


def info_of(outcome: Outcome) -> Info:
    """The answer to `GET /info`.

    Raises:
        ClientError: there is none.
    """
    response = _succeeded(outcome)
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not answer.keys() >= {"dim", "max_inputs", "max_body_bytes"}:
        raise ServerError(response.status_code, f"{response.url} is not of IEI: it answers {response.text[:100]!r}")
    return cast(Info, answer)


def vectors_of(outcome: Outcome, count: int) -> Vectors:
    """float32[count, d]: the answer to a request for the embeddings of `count` items.

    Raises:
        InputError: some items are at fault. The indices are those in the request.
        ClientError: there is no such answer.
    """
    response = _succeeded(outcome, count)
    try:
        vectors = np.load(io.BytesIO(response.content), allow_pickle=False)
    except ValueError:
        vectors = None
    if vectors is None or vectors.ndim != 2 or len(vectors) != count:
        media_type = response.headers.get("content-type")
        raise ServerError(response.status_code, f"{response.url} answers {media_type}, not a vector for each item")
    log.debug("%d items → %s in %s", count, vectors.shape, _measured(response))
    if warning := response.headers.get("x-iei-warning"):
        _warn_once(warning)
    return cast(Vectors, vectors.astype(np.float32, copy=False))


@cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def _measured(response: httpx2.Response) -> str:
    """The time that an answer took, as seen from here and as the server says: `34.1 ms (server: total 30.2, …)`."""
    parts = (re.fullmatch(r"x-(\w+)-time", name) for name in response.headers)
    stages = [f"{part[1]} {response.headers[part[0]]}" for part in parts if part]
    seen = f"{response.elapsed.total_seconds() * 1e3:.1f} ms"
    return f"{seen} (server: {', '.join(stages)})" if stages else seen


def _succeeded(outcome: Outcome, count: int = 0) -> httpx2.Response:
    if not isinstance(outcome, httpx2.Response):
        raise _unreachable(outcome) from outcome
    if outcome.is_success:
        return outcome
    raise _refused(outcome, count)


def _unreachable(error: httpx2.RequestError) -> Unreachable:
    url = error.request.url.copy_with(path="/", query=None)
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout():
            return Unreachable(f"no server answers at {url}: {error or 'timed out'}")
        case httpx2.TimeoutException():
            return Unreachable(f"the server at {url} did not answer in time")
        case _:
            return Unreachable(f"the connection to {url} broke: {error or type(error).__name__}")


def _refused(response: httpx2.Response, count: int) -> ClientError:
    message = _message(response)
    before, *bad = _BAD_INPUT.split(message)
    errors = {int(index): text for index, text in zip(bad[::2], bad[1::2], strict=True)}
    if errors and not before and max(errors) < count:
        return InputError(errors)
    return ServerError(response.status_code, message, response.headers.get("x-request-id"))


def _message(response: httpx2.Response) -> str:
    """In the words of the server, or the beginning of what a proxy shows instead."""
    try:
        answer: Any = response.json()
    except ValueError:
        answer = None
    if isinstance(answer, Mapping) and isinstance(answer.get("error"), str):
        return str(answer["error"])
    return response.text[:200].strip() or response.reason_phrase
