"""A batch of a call: the requests for its items, which both clients send, and the vectors that come of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from iei.client.answers import Info, Vectors, vectors_of
from iei.client.errors import InputError
from iei.client.retries import Outcome

if TYPE_CHECKING:
    from iei.client.calls import Call

REQUEST_BYTES = 2**23
"""A request is not made larger than this, but for a single item: so many bytes of each batch are in memory."""
PART_BYTES = 200
"""What an item has in a body besides its content, at most: the head of its part, or its share of the other fields."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What a request has of an item."""

    index: int
    """In the call."""
    name: str
    """What errors call the item besides its index; may be empty."""
    content: bytes
    """A file, or a string as JSON."""
    is_file: bool

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.content) + PART_BYTES


@dataclass(slots=True)
class Request:
    """One request, which somebody sends, and then sets what came of it."""

    arguments: Mapping[str, Any]
    """Of httpx2's `Client.build_request`."""
    outcome: Outcome | None = None


class Batch:
    """Items of a call that follow one another.

    Args:
        call: what is asked for.
        info: of the model, with the limits of the server.
        start: index of the first item in the call.
        items: some of the call's.
    """

    def __init__(self, call: Call, info: Info, start: int, items: Sequence[Any]) -> None:
        self._call = call
        self._info = info
        self._start = start
        self._items = items
        self._rows: dict[int, Vectors] = {}
        """Index in the call → float32[d]."""

    def requests(self) -> Iterator[Request]:
        """One request, or several where the batch is large, or has files and addresses.

        The outcome of each must be set before the next is asked for.

        Where the call collects its errors, a request with bad items is sent again without them: it was refused as a
        whole, for an array of numbers has no null.

        Raises:
            InputError: an item is at fault, and the call does not collect its errors.
            ClientError: a request has no vectors.
        """
        for group in self._groups():
            parts = group
            while parts:
                request = self._request(parts)
                yield request
                assert request.outcome is not None
                parts = self._without_vectors(parts, request.outcome)

    @property
    def vectors(self) -> Vectors:
        """float32[n, d], once all requests have been answered. The rows of bad items are NaN."""
        bad = np.full(self._call.dimension(self._info), np.nan, np.float32)
        return np.stack([self._rows.get(self._start + place, bad) for place in range(len(self._items))])

    def _groups(self) -> Iterator[list[Part]]:
        """The parts of one request after the other."""
        most = min(REQUEST_BYTES, self._info["max_body_bytes"])
        parts: list[Part] = []
        used = 0
        for index, item in enumerate(self._items, self._start):
            try:
                part = self._part(index, item)
            except (ValueError, orjson.JSONEncodeError) as error:
                self._failed({index: _named(self._call.name(item), str(error))})
                continue
            if parts and (used + part.size > most or part.is_file != parts[0].is_file):
                yield parts
                parts, used = [], 0
            parts.append(part)
            used += part.size
        yield parts

    def _part(self, index: int, item: Any) -> Part:
        try:
            sent = self._call.sent(item)
        except OSError as error:
            raise ValueError(error.strerror or str(error)) from error
        is_file = isinstance(sent, bytes)
        part = Part(index, self._call.name(item), sent if isinstance(sent, bytes) else orjson.dumps(sent), is_file)
        if part.size > (limit := self._info["max_body_bytes"]):
            raise ValueError(
                f"has {part.size} bytes as it is sent, over the server's limit of {limit} for a request "
                "(IEI_MAX_BODY_BYTES)"
            )
        return part

    def _request(self, parts: Sequence[Part]) -> Request:
        options = {name: value for name, value in self._call.options.items() if value is not None}
        body: dict[str, Any]
        if parts[0].is_file:
            files = [(f"inputs[{place}]", ("file", part.content)) for place, part in enumerate(parts)]
            body = {"files": files, "params": options}
        else:
            strings = [orjson.Fragment(part.content) for part in parts]
            content = orjson.dumps({"inputs": strings, "modality": self._call.modality, **options})
            body = {"content": content, "headers": {"content-type": "application/json"}}
        return Request({"method": "POST", "url": self._call.path, **body})

    def _without_vectors(self, parts: Sequence[Part], outcome: Outcome) -> list[Part]:
        """Keeps the vectors of an answer. Returns what is to be sent again: the good parts of a refused request."""
        try:
            vectors = vectors_of(outcome, len(parts))
        except InputError as error:
            bad = {parts[place]: message for place, message in error.errors.items()}
            self._failed({part.index: _named(part.name, message) for part, message in bad.items()})
            return [part for part in parts if part not in bad]
        self._rows.update(zip((part.index for part in parts), vectors, strict=True))
        return []

    def _failed(self, errors: Mapping[int, str]) -> None:
        if self._call.errors is None:
            raise InputError(errors)
        self._call.errors.update(errors)


def _named(name: str, message: str) -> str:
    return f"{name}: {message}" if name else message
