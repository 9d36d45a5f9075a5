"""A call's items → batches, and a batch → requests that the server takes. No sockets: both clients send them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import quote

import numpy as np
import orjson
from tqdm import tqdm

from iei.client import pictures
from iei.client.answers import Info, Vectors, vectors_of
from iei.client.errors import InputError
from iei.client.pictures import ImageItem
from iei.client.retries import Outcome

Pooling: TypeAlias = Literal["cls", "mean", "patch_mean", "max", "last", "pooler"]

REQUEST_BYTES = 2**23
"""A request is not made larger than this, but for a single item: so many bytes of each batch are in memory."""
PART_BYTES = 200
"""What an item has in a body besides its content, at most: the head of its part, or its share of the other fields."""


class Batch(NamedTuple):
    """Items of a call that follow one another."""

    start: int
    """Index of the first one in the call."""
    items: Sequence[Any]


class Part(NamedTuple):
    """What a request has of an item."""

    name: str
    """What errors call the item besides its index; may be empty."""
    content: bytes
    """A file, or a string as JSON."""
    is_file: bool

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.content) + PART_BYTES


class Request(NamedTuple):
    """Some items of a call, as one request."""

    start: int
    """Index of the first one in the call."""
    names: Sequence[str]
    """Of the items."""
    arguments: Mapping[str, Any]
    """Of httpx2's `Client.build_request`."""

    def vectors(self, outcome: Outcome) -> Vectors:
        """float32[n, d] of these items.

        Raises:
            InputError: some of them are at fault.
            ClientError: there is no such answer.
        """
        try:
            return vectors_of(outcome, len(self.names))
        except InputError as error:
            named = {index: _named(self.names[index], message) for index, message in error.errors.items()}
            raise InputError({self.start + index: message for index, message in named.items()}) from None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of `embed_images` or `embed_texts`."""

    items: Iterable[Any]
    unit: str
    """What the progress bar counts."""
    sent: Callable[[Any], bytes | str]
    """What is sent of an item. It may block. Raises OSError or ValueError for a bad one."""
    name: Callable[[Any], str]
    """What errors call an item besides its index; may be empty."""
    model: str | None
    options: Mapping[str, Any]
    """Fields of the request besides its items; None: left out."""
    modality: Literal["image", "text"] = "image"

    def progress(self, *, shown: bool) -> tqdm[Any]:
        """The bar, which is to be told of each vector."""
        total = len(self.items) if isinstance(self.items, (Sequence, np.ndarray)) else None
        return tqdm(total=total, unit=self.unit, disable=not shown)

    def batches(self, size: int, info: Info) -> Iterator[Batch]:
        """All items, `size` in each batch, as far as the server takes so many."""
        size = min(size, info["max_inputs"])
        coming = iter(self.items)
        starts = count(0, size)
        while items := list(islice(coming, size)):
            yield Batch(next(starts), items)

    def requests(self, batch: Batch, info: Info) -> Iterator[Request]:
        """A batch as one request, or as several where it is large, or has files and addresses.

        Raises:
            InputError: an item can't be sent.
        """
        most = min(REQUEST_BYTES, info["max_body_bytes"])
        parts: list[Part] = []
        used = 0
        for index, item in enumerate(batch.items, batch.start):
            try:
                part = self._part(item, info["max_body_bytes"])
            except (ValueError, orjson.JSONEncodeError) as error:
                raise InputError({index: _named(self.name(item), str(error))}) from error
            if parts and (used + part.size > most or part.is_file != parts[0].is_file):
                yield self._request(index - len(parts), parts)
                parts, used = [], 0
            parts.append(part)
            used += part.size
        yield self._request(batch.start + len(batch.items) - len(parts), parts)

    def joined(self, blocks: Sequence[Vectors], info: Info) -> Vectors:
        """The vectors of all batches. float32[0, d] if there were no items."""
        if blocks:
            return np.concatenate(blocks)
        dim = self.options["dimensions"] or info["poolings"].get(self.options["pooling"], info["dim"])
        return np.empty((0, dim), np.float32)

    def _part(self, item: Any, max_bytes: int) -> Part:
        try:
            sent = self.sent(item)
        except OSError as error:
            raise ValueError(error.strerror or str(error)) from error
        name = self.name(item)
        part = Part(name, sent, True) if isinstance(sent, bytes) else Part(name, orjson.dumps(sent), False)
        if part.size > max_bytes:
            limit = f"over the server's limit of {max_bytes} for a request (IEI_MAX_BODY_BYTES)"
            raise ValueError(f"has {part.size} bytes as it is sent, {limit}")
        return part

    def _request(self, start: int, parts: Sequence[Part]) -> Request:
        options = {name: value for name, value in self.options.items() if value is not None}
        body: dict[str, Any]
        if parts[0].is_file:
            files = [(f"inputs[{index}]", ("file", part.content)) for index, part in enumerate(parts)]
            body = {"files": files, "params": options}
        else:
            strings = [orjson.Fragment(part.content) for part in parts]
            content = orjson.dumps({"inputs": strings, "modality": self.modality, **options})
            body = {"content": content, "headers": {"content-type": "application/json"}}
        arguments = {"method": "POST", "url": path_of(self.model, "embed"), **body}
        return Request(start, [part.name for part in parts], arguments)


def _named(name: str, message: str) -> str:
    return f"{name}: {message}" if name else message


def path_of(model: str | None, route: str) -> str:
    """The path of a route, for a model or for the server's first one."""
    return f"m/{quote(model)}/{route}" if model else route


def image_call(
    images: ImageItem | Iterable[ImageItem],
    *,
    model: str | None,
    pooling: Pooling | None,
    normalize: bool | None,
    dimensions: int | None,
) -> Call:
    """A call for the embeddings of pictures."""
    options = {"pooling": pooling, "normalize": normalize, "dimensions": dimensions}
    return Call(pictures.listed(images), "picture", pictures.sent, pictures.name, model, options)


def text_call(
    texts: str | Iterable[str],
    *,
    model: str | None,
    pooling: Pooling | None,
    normalize: bool | None,
    dimensions: int | None,
    prompt_name: str | None,
    truncate: bool | None,
) -> Call:
    """A call for the embeddings of texts."""
    options = {
        "pooling": pooling,
        "normalize": normalize,
        "dimensions": dimensions,
        "prompt_name": prompt_name,
        "truncate": truncate,
    }
    listed = [texts] if isinstance(texts, str) else texts
    return Call(listed, "text", _text, lambda text: "", model, options, modality="text")


def _text(text: object) -> str:
    if isinstance(text, str):
        return text
    raise ValueError(f"is a {type(text).__name__}, not a str: pictures go to embed_images")
