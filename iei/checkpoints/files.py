"""A checkpoint's files: which of them hold its weights, and reading its JSON."""

from __future__ import annotations

import json
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from iei.errors import StartupError

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
"""Names of files with weights: one file, or the index of several and those."""

EXPORTED = "openvino"
"""Folder in a checkpoint's that `iei export` has written: in place of weights, the model converted for OpenVINO."""


def weight_files(names: Collection[str], source: object, *, allow_pickle: bool) -> list[str]:
    """Returns the files with weights: safetensors if there are any, else pickles. The first has or lists all weights.

    Args:
        names: of all files in a folder or repository.
        source: what to call that in an error.
        allow_pickle: whether pickles may be used.

    Raises:
        StartupError: there are none, or pickles only and they are not allowed.
    """
    safetensors, pickles = (
        [name for pattern in patterns for name in names if fnmatch(name, pattern)]
        for patterns in (SAFETENSORS, PICKLES)
    )
    if not safetensors and not pickles:
        raise StartupError(f"{source} has no model.safetensors: it holds no weights for transformers.")
    if not safetensors and not allow_pickle:
        raise StartupError(
            f"{source} has its weights in a pickle only ({pickles[0]}): convert them to safetensors, or set "
            "IEI_ALLOW_PICKLE=true if you trust its source."
        )
    return safetensors or pickles


def read_json(file: Path, kind: type[dict[str, Any]] | type[list[Any]] = dict) -> Any:
    """Returns the content of a JSON file, which must be a `kind`; None if there is no such file.

    Raises:
        StartupError: it can't be read, or holds something else than a `kind`.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StartupError(f"{file} is not JSON ({error}): download or copy it again.") from None
    if not isinstance(content, kind):
        raise StartupError(f"{file} is not a JSON {'object' if kind is dict else 'list'}: download or copy it again.")
    return content
