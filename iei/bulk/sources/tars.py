"""Shards of WebDataset: tar files in which members with one name, up to its first dot, are one sample."""

from __future__ import annotations

import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import orjson

from iei.bulk.items import Broken, Content, Encoded, Item, Text
from iei.bulk.sources.files import Files
from iei.bulk.sources.pictures import SUFFIXES
from iei.bulk.sources.reading import reading
from iei.errors import InvalidInput
from iei.models.spec import Modality

_TEXTS = ("txt", "caption", "text")
"""Extensions of members that are texts."""


class Shard:
    """A tar file, read from its first byte to its last, so that it may come from anywhere; compressed or not.

    Args:
        files: where it is.
        path: its path.
        extension: that of the member that is embedded. None: the picture, or the text.
        label: what ids begin with.
        modality: `text`: texts are embedded.
        keep: columns of the output: extensions of members, as text; or fields of the member `json`.
    """

    total = None

    def __init__(
        self,
        files: Files,
        path: str,
        extension: str | None,
        label: str,
        modality: Modality | None,
        keep: Sequence[str],
    ) -> None:
        self._files = files
        self._path = path
        self._label = label
        self._modality = modality
        self._keep = tuple(keep)
        self._is_embedded: Callable[[str], bool]
        if extension:
            self._is_embedded = extension.lower().__eq__
        elif modality == "text":
            self._is_embedded = _TEXTS.__contains__
        else:
            self._is_embedded = _is_picture
        self.skipped = 0

    def __iter__(self) -> Iterator[Item]:
        """See `Source`."""
        self.skipped = 0
        with (
            reading(self._path, "a tar file", tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
            self._files.open(self._path) as stream,
            tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Member) as archive,
        ):
            for key, members in groupby(_members(archive), key=lambda member: split(member.name)[0]):
                sample = self._sample(archive, members)
                if sample is None:
                    self.skipped += 1
                else:
                    yield Item(f"{self._label}/{key}", *sample)

    def _sample(
        self, archive: tarfile.TarFile, members: Iterator[tarfile.TarInfo]
    ) -> tuple[Content, Mapping[str, Any]] | None:
        """What of a sample's members is embedded and kept; None if there is nothing to embed."""
        content: Content | None = None
        read: dict[str, bytes] = {}
        for member in members:
            extension = split(member.name)[1].lower()
            if content is None and self._is_embedded(extension):
                data = _data(archive, member)
                content = self._content(data)
                read[extension] = data
            elif self._keep and (extension == "json" or extension in self._keep):
                read[extension] = _data(archive, member)
        if content is None:
            return None
        return content, self._kept(read) if self._keep else {}

    def _content(self, data: bytes) -> Content:
        if self._modality != "text":
            return Encoded(data)
        try:
            return Text(data.decode()) if data.strip() else Broken(InvalidInput("is empty"))
        except UnicodeDecodeError as error:
            return Broken(InvalidInput(f"is not UTF-8: {error}"))

    def _kept(self, read: Mapping[str, bytes]) -> Mapping[str, Any]:
        try:
            fields = orjson.loads(read.get("json", b"{}"))
        except orjson.JSONDecodeError:
            fields = {}
        fields = fields if isinstance(fields, dict) else {}
        return {
            name: read[name].decode("utf-8", "replace") if name in read else fields.get(name) for name in self._keep
        }


def split(name: str) -> tuple[str, str]:
    """A member's name as its sample's key and its extension, `a/0001.left.jpg` → `a/0001` and `left.jpg`."""
    folder, file = posixpath.split(name.removeprefix("./"))
    key, _, extension = file.partition(".")
    return posixpath.join(folder, key), extension


def _is_picture(extension: str) -> bool:
    """Of `left.jpg` and `mask.png` too: the first in a sample is taken."""
    return f".{extension.rpartition('.')[2]}" in SUFFIXES


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields the files, without what macOS's archiver and others hide among them."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # it would hold one for each member of the archive
        name = posixpath.basename(member.name)
        if member.isfile() and not name.startswith(".") and "__MACOSX" not in member.name:
            yield member


def _data(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise tarfile.ReadError(f"member {member.name} is no file")
    data = file.read()
    if len(data) != member.size:
        raise tarfile.ReadError(f"unexpected end of data in {member.name}")
    return data


class _Member(tarfile.TarInfo):
    """Raises where an archive breaks off, which tarfile takes for its end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset}") from error
