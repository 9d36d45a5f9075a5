"""Pictures in a folder and all folders below it, or that match a pattern."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, partial
from time import monotonic

from iei.bulk.items import Broken, Item, Stored
from iei.bulk.sources.files import Files
from iei.bulk.sources.pictures import at_address, is_picture
from iei.bulk.sources.reading import reading, utf8
from iei.bulk.sources.walk import Found, glob, walk
from iei.errors import InvalidInput, StartupError

COUNTING_S = 20
"""Seconds after which files are not counted any further: the time that is left of a job is worth no more."""
_SHOWN = 4
"""Most kinds of other files that are named where there are no pictures."""


class _Pictures:
    """The pictures among files that a walk finds, in its order."""

    def __init__(self, files: Files, path: str, label: str = "") -> None:
        self._files = files
        self._path = path
        self._prefix = f"{label}/" if label else ""
        self.skipped = 0

    @cached_property
    def total(self) -> int | None:
        """See `Source`. A million files are counted in a few seconds; if it takes longer, they are not."""
        end = monotonic() + COUNTING_S
        count = 0
        with reading(self._path):
            for found in self._found():
                if monotonic() > end:
                    return None
                count += bool(found.error) or is_picture(self._files, found.path)
        return count

    def __iter__(self) -> Iterator[Item]:
        """See `Source`."""
        self.skipped, pictures = 0, 0
        others: Counter[str] = Counter()
        with reading(self._path):
            for found in self._found():
                id_ = utf8(self._prefix + found.name)
                if found.error:
                    yield Item(id_, Broken(InvalidInput("is a folder that this user may not read (permissions)")))
                elif is_picture(self._files, found.path):
                    pictures += 1
                    yield Item(id_, Stored(partial(self._files.read, found.path)))
                else:
                    self.skipped += 1
                    others[posixpath.splitext(found.path)[1].lower()] += 1
        if not pictures:
            raise StartupError(self._nothing(others))

    def _found(self) -> Iterator[Found]:
        raise NotImplementedError

    def _nothing(self, others: Counter[str]) -> str:
        raise NotImplementedError


class Folder(_Pictures):
    """A folder: ids are paths below it, behind `label`."""

    def _found(self) -> Iterator[Found]:
        return walk(self._files, self._path)

    def _nothing(self, others: Counter[str]) -> str:
        if not others:
            return f"{self._path} has no files."
        kinds = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in others.most_common(_SHOWN))
        return f"no pictures below {self._path} ({others.total()} other files: {kinds})."


class Pattern(_Pictures):
    """What a pattern of `*`, `?`, `[…]` and `**` matches: ids are whole paths, as a shell would write them."""

    def _found(self) -> Iterator[Found]:
        return glob(self._files, self._path)

    def _nothing(self, others: Counter[str]) -> str:
        if not others:
            return f"no file matches {self._path!r}."
        return f"no pictures among the {others.total()} files that match {self._path!r}."


class SingleFile:
    """A file that is named: taken for a picture whatever its name is, so that its row says what is wrong with it."""

    total = 1
    skipped = 0

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path

    def __iter__(self) -> Iterator[Item]:
        """See `Source`."""
        yield Item(utf8(self._path), Stored(partial(self._files.read, self._path)))


class SingleAddress:
    """A picture at an http or https address, or in a data URI."""

    total = 1
    skipped = 0

    def __init__(self, address: str) -> None:
        self._address = address

    def __iter__(self) -> Iterator[Item]:
        """See `Source`."""
        yield Item(self._address, at_address(self._address))
