"""One call of a client, whichever it is: what it is to embed, and how; and its items → batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from iei.client import pictures
from iei.client.answers import Info, Vectors
from iei.client.batches import Batch
from iei.client.pictures import ImageItem

Pooling: TypeAlias = Literal["cls", "mean", "patch_mean", "max", "last", "pooler"]


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
    errors: MutableMapping[int, str] | None
    """Gets what is wrong with bad items. None: they end the call."""
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
            yield Batch(self, info, next(starts), items)

    def joined(self, blocks: Sequence[Vectors], info: Info) -> Vectors:
        """The vectors of all batches. float32[0, d] if there were no items."""
        return np.concatenate(blocks) if blocks else np.empty((0, self.dimension(info)), np.float32)

    def dimension(self, info: Info) -> int:
        """Values of a vector."""
        dimension: int = self.options["dimensions"] or info["poolings"].get(self.options["pooling"], info["dim"])
        return dimension

    @property
    def path(self) -> str:
        """Where requests for embeddings go."""
        return path_of(self.model, "embed")


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
    errors: MutableMapping[int, str] | None,
) -> Call:
    """A call for the embeddings of pictures."""
    options = {"pooling": pooling, "normalize": normalize, "dimensions": dimensions}
    return Call(pictures.listed(images), "picture", pictures.sent, pictures.name, model, options, errors)


def text_call(
    texts: str | Iterable[str],
    *,
    model: str | None,
    pooling: Pooling | None,
    normalize: bool | None,
    dimensions: int | None,
    prompt_name: str | None,
    truncate: bool | None,
    errors: MutableMapping[int, str] | None,
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
    return Call(listed, "text", _text, lambda text: "", model, options, errors, modality="text")


def _text(text: object) -> str:
    if isinstance(text, str):
        return text
    raise ValueError(f"is a {type(text).__name__}, not a str: pictures go to embed_images")
