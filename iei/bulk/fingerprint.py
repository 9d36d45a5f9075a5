"""What decides the numbers of a vector: two parts of a job may lie side by side only if it is the same for both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import orjson

from iei.checkpoints.checkpoint import find_folder
from iei.checkpoints.files import EXPORTED, weight_files
from iei.checkpoints.folders import revision_of
from iei.models.catalog import LoadRequest

Fingerprint = Mapping[str, Any]
"""Field → value, as JSON has it; fields may have fields."""

_PACKAGES = ("numpy", "openvino", "pillow", "tokenizers", "torch", "transformers")

_MODULES = {"pillow": "PIL"}


def versions() -> dict[str, str]:
    """The programs that compute here → their versions."""
    installed = {name: version(name) for name in _PACKAGES if find_spec(_MODULES.get(name, name))}
    return {"iei": version("image-embedding-inference"), **installed}


def plain(fields: Mapping[str, Any]) -> Fingerprint:
    """The fields as JSON has them: lists instead of tuples."""
    read: Fingerprint = orjson.loads(orjson.dumps(fields))
    return read


def weights_digest(request: LoadRequest) -> str | None:
    """SHA-256 of a folder's weights, in hex; None of a model of the hub, whose commit says the same."""
    folder = find_folder(request)
    if revision_of(folder):
        return None
    if (folder / EXPORTED).is_dir():
        names = [f"{EXPORTED}/{file.name}" for file in (folder / EXPORTED).iterdir()]
    else:
        files = sorted(file.name for file in folder.iterdir())
        names = weight_files(files, folder, allow_pickle=request.options.allow_pickle)
    digest = hashlib.sha256()
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def differences(here: Fingerprint, there: Fingerprint, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields each field that differs as (`versions.torch`, value here, value there)."""
    for name in sorted(here.keys() | there.keys()):
        ours, theirs = here.get(name), there.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from differences(ours, theirs, f"{path}{name}.")
        elif ours != theirs:
            yield f"{path}{name}", ours, theirs
