"""Converted models that are kept: converted once, found by all later starts, and made again if they are damaged."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from iei.checkpoints.files import PICKLES, SAFETENSORS
from iei.runtimes.openvino.converted import DESCRIPTION, DigestOf, read_converted, sha256

log = logging.getLogger("iei.engine")

FORMAT = 1
"""To be raised whenever conversion changes: what was converted before is not found any more."""
PACKAGES = ("openvino", "torch", "transformers")
"""Those that decide what a conversion gives."""


def key(folder: Path, digest_of: DigestOf = sha256) -> str:
    """What a conversion of the checkpoint in `folder` depends on, as a name: its files, and who converts them."""
    digest = hashlib.sha256(repr((FORMAT, versions())).encode())
    for file in sorted(_files(folder)):
        digest.update(f"{file.relative_to(folder)} {digest_of(file)}\n".encode())
    return digest.hexdigest()[:32]


def quantized_key(converted: Path, calibration: Path | None) -> str:
    """What an int8 version of a converted model depends on, as a name: that model, the pictures and who quantises.

    Of the pictures, their names, sizes and times are looked at, which is quick where there are many.
    """
    digest = hashlib.sha256(repr((FORMAT, _version("nncf"), sha256(converted / DESCRIPTION))).encode())
    if calibration:
        for file in sorted(calibration.rglob("*")):
            state = file.stat()
            digest.update(f"{file.relative_to(calibration)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def versions() -> dict[str, str]:
    """Those of `PACKAGES` that are installed → their versions."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def kept(folder: Path, make: Callable[[Path], object], digest_of: DigestOf = sha256) -> Path:
    """Returns `folder`, in which `make` has put a converted model, now or earlier.

    Several processes may call it at once: one makes the model, the others wait. They see a whole model or none.

    Args:
        folder: where the model is kept.
        make: puts a model into an empty folder.
        digest_of: tells whether a file is damaged.

    Raises:
        OSError: the folder can't be written.
        Exception: what `make` raised.
    """
    if _is_whole(folder, digest_of):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if _is_whole(folder, digest_of):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            make(draft)
            draft.chmod(0o755)  # mkdtemp's folders are for one user only
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def _is_whole(folder: Path, digest_of: DigestOf) -> bool:
    try:
        read_converted(folder, digest_of=digest_of)
    except FileNotFoundError:
        return False
    except ValueError as damage:
        log.warning("%s: the model is converted again", damage)
        return False
    return True


def _files(folder: Path) -> Iterator[Path]:
    """The files that decide what a checkpoint computes; sentence-transformers has some in folders of their own."""
    for pattern in ("*.json", *SAFETENSORS, *PICKLES):
        yield from (file for place in ("", "*/") for file in folder.glob(f"{place}{pattern}"))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keeps other processes out; released by the kernel, should this one die."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
