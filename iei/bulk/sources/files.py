"""Where the files of an input are: in folders of this machine, or in what fsspec reads (s3://, gs://, memory://, …)."""

from __future__ import annotations

import errno
import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from iei.errors import StartupError

MOST_BYTES = 2**30
"""Largest file that is read whole. The service has the limit on a picture, `IEI_MAX_IMAGE_BYTES`."""


class Files(Protocol):
    """A file system. Paths are as the user writes them, `s3://` and all. Every method may raise OSError."""

    def names(self, folder: str) -> list[str]:
        """What is in a folder, sorted; folders end in `/`. Pipes, sockets and devices are left out."""
        ...

    def is_folder(self, path: str) -> bool:
        """Whether it is there, and a folder."""
        ...

    def exists(self, path: str) -> bool:
        """Whether it is there."""
        ...

    def identity(self, folder: str) -> Hashable:
        """What all paths to one folder have in common."""
        ...

    def open(self, path: str) -> BinaryIO:
        """The file, to be read in pieces."""
        ...

    def read(self, path: str) -> bytes:
        """The whole file."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """This machine's."""

    def names(self, folder: str) -> list[str]:
        """See `Files`. A link that leads nowhere is a file: reading it says so."""
        with os.scandir(folder or ".") as entries:
            return sorted(
                entry.name + "/" * entry.is_dir()
                for entry in entries
                if entry.is_dir() or entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
            )

    def is_folder(self, path: str) -> bool:
        """See `Files`."""
        return Path(path).is_dir()

    def exists(self, path: str) -> bool:
        """See `Files`. A name that is too long for a file, as a glob may be, is none."""
        try:
            return os.path.lexists(path)
        except ValueError:
            return False

    def identity(self, folder: str) -> Hashable:
        """See `Files`."""
        status = Path(folder or ".").stat()
        return status.st_dev, status.st_ino

    def open(self, path: str) -> BinaryIO:
        """See `Files`."""
        return Path(path).open("rb")

    def read(self, path: str) -> bytes:
        """See `Files`. No picture is as large as `MOST_BYTES`, and several are read at a time."""
        with self.open(path) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
            return file.read()


@dataclass(frozen=True, slots=True)
class RemoteFiles:
    """Those of one file system of fsspec."""

    fs: Any

    def names(self, folder: str) -> list[str]:
        """See `Files`. Object stores have folders only as far as names of objects have slashes in them."""
        with _faults(folder):
            # Its cache would hold a record of each object for the whole job.
            listing = self.fs.ls(folder, detail=True, refresh=True)
            self.fs.invalidate_cache()
        here = self.fs._strip_protocol(folder).rstrip("/")
        found = ((entry["name"].rstrip("/"), entry["type"] == "directory") for entry in listing)
        # Some stores list the folder itself, as an empty object that marks it.
        return sorted(path.rsplit("/", 1)[-1] + "/" * is_folder for path, is_folder in found if path != here)

    def is_folder(self, path: str) -> bool:
        """See `Files`."""
        with _faults(path):
            return bool(self.fs.isdir(path))

    def exists(self, path: str) -> bool:
        """See `Files`."""
        with _faults(path):
            return bool(self.fs.exists(path))

    def identity(self, folder: str) -> Hashable:
        """See `Files`. There are no links that could lead back."""
        return folder

    def open(self, path: str) -> BinaryIO:
        """See `Files`."""
        with _faults(path):
            return cast("BinaryIO", self.fs.open(path, "rb"))

    def read(self, path: str) -> bytes:
        """See `Files`."""
        with _faults(path):
            return cast("bytes", self.fs.cat_file(path))


def files_of(path: str) -> Files:
    """The file system that a path or URL belongs to.

    Raises:
        StartupError: fsspec does not know the URL's scheme, or lacks a package for it.
    """
    scheme, separator, _ = path.partition("://")
    if not separator:
        return LocalFiles()
    import fsspec  # most jobs read from this machine

    try:
        return RemoteFiles(fsspec.url_to_fs(path)[0])
    except ImportError as error:
        raise StartupError(
            f"{scheme}:// needs a package that is not installed ({error}). "
            "s3:// and gs:// come with: pip install 'image-embedding-inference[cloud]'."
        ) from error
    except ValueError as error:
        raise StartupError(f"{path} can't be read: fsspec knows no {scheme}:// ({error}).") from error


def join(folder: str, name: str) -> str:
    """The path of what is in a folder."""
    return folder + name if folder.endswith("/") or not folder else f"{folder}/{name}"


@contextmanager
def _faults(path: str) -> Iterator[None]:
    """What clouds raise, as OSError: each has exceptions of its own for a key that is wrong or a host that is away."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", path) from error
