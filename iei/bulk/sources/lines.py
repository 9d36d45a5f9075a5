"""Lines: paths, URLs or JSON objects, from stdin or a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO

import orjson

from iei.bulk.items import Broken, Content, Item, Text
from iei.bulk.sources.pictures import at_address, in_base64, missing
from iei.bulk.sources.reading import reading
from iei.errors import InvalidInput, StartupError
from iei.models.spec import Modality

_FIELDS: Mapping[str, Callable[[Any], Content]] = {
    "path": at_address,
    "url": at_address,
    "image": in_base64,
    "text": lambda value: Text(value) if isinstance(value, str) and value else missing(value),
}
"""Field of an object → what its value stands for. The first one that an object has counts."""


class Lines:
    """An item for each line: a JSON object with `path`, `url`, `image` (base64) or `text`; or a path or URL by itself.

    Args:
        name: what errors call it.
        opened: opens it.
        modality: `text`: lines that are no objects are texts.
        keep: fields of the output.
        id_column: the field that ids are from. None: `id`, or else the path or URL, or else the number of the line.
    """

    total = None
    skipped = 0

    def __init__(
        self,
        name: str,
        opened: Callable[[], AbstractContextManager[BinaryIO]],
        modality: Modality | None,
        keep: Sequence[str],
        id_column: str | None,
    ) -> None:
        self._name = name
        self._opened = opened
        self._modality = modality
        self._keep = tuple(keep)
        self._id = id_column or "id"

    def __iter__(self) -> Iterator[Item]:
        """See `Source`."""
        with reading(self._name), self._opened() as lines:
            for number, line in enumerate(lines, start=1):
                if stripped := line.strip():
                    yield self._item(number, stripped)

    def _item(self, number: int, line: bytes) -> Item:
        if line.startswith(b"{"):
            return self._object(number, line)
        text = line.decode("utf-8", "backslashreplace")
        kept = dict.fromkeys(self._keep)
        if self._modality == "text":
            return Item(str(number), Text(text), kept)
        return Item(text, at_address(line.decode("utf-8", "surrogateescape")), kept)

    def _object(self, number: int, line: bytes) -> Item:
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            fault = Broken(InvalidInput(f"line {number} of {self._name} is not JSON: {error}"))
            return Item(str(number), fault, dict.fromkeys(self._keep))
        field = next((name for name in _FIELDS if name in fields), None)
        content = (
            _FIELDS[field](fields[field])
            if field
            else Broken(InvalidInput(f"line {number} of {self._name} has none of {', '.join(_FIELDS)}"))
        )
        ids = (fields.get(name) for name in (self._id, "path", "url"))
        id_ = next((str(value) for value in ids if isinstance(value, (str, int)) and value != ""), str(number))
        return Item(id_, content, {name: fields.get(name) for name in self._keep})


def standard_input() -> Callable[[], AbstractContextManager[BinaryIO]]:
    """What opens stdin, once."""
    taken = False

    def opened() -> AbstractContextManager[BinaryIO]:
        nonlocal taken
        if taken:
            raise StartupError("stdin can be read only once: write it to a file (x.ndjson), and give that.")
        taken = True
        return nullcontext(sys.stdin.buffer)

    return opened
