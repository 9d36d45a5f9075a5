"""What every source of a bulk job is read as."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from iei.errors import IEIError


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture's file that its source had to read anyway, as a member of a tar or a value of a column."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture's file that is read when its turn comes, in a thread, so that listing a million costs little."""

    read: Callable[[], bytes]
    """Raises OSError."""


@dataclass(frozen=True, slots=True)
class Link:
    """A picture at an http or https address, which the guarded download fetches."""

    url: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text."""

    text: str


@dataclass(frozen=True, slots=True)
class Broken:
    """What its source could not make out, such as a null in a column: its row has the error, and no vector."""

    error: IEIError


Content = Encoded | Stored | Link | Text | Broken


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the input, and so of the output."""

    id: str
    """The same each time the source is read: a path below the folder, the key of a sample, the number of a row."""
    content: Content
    kept: Mapping[str, Any] = field(default_factory=dict)
    """Column → value, of the columns that the output keeps; a key for each, None where the row has no value."""


class Source(Protocol):
    """Where items come from.

    Iterating begins at the first item each time, always yields the same items in the same order while the input stays
    as it is, and holds a bounded number of them, whatever the input's size.
    """

    def __iter__(self) -> Iterator[Item]:
        """Yields the items.

        Raises:
            StartupError: the input can't be read any further: no such folder, a mount that has vanished.
        """
        ...

    @property
    def total(self) -> int | None:
        """Items, where they can be counted without reading them; None otherwise. For progress only."""
        ...

    @property
    def skipped(self) -> int:
        """Files passed over so far because they are no pictures."""
        ...
