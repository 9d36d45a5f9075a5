"""Folder → transformers module, with every weight accounted for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

from iei.errors import StartupError
from iei.models.architectures import Architecture


def load_weights(
    folder: Path, architecture: Architecture, *, dtype: torch.dtype, attention: str | None
) -> tuple[Any, bool]:
    """The module, on the CPU and in evaluation mode, and whether the model's own pooling has its weights.

    StartupError names the weights that are missing or of the wrong shape: transformers would fill them at random.
    """
    pooler = architecture.pooler
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    if attention:
        options["attn_implementation"] = attention
    if pooler and pooler.removable:
        options["add_pooling_layer"] = any(f".{pooler.weights}" in f".{name}" for name in stored_names(folder))
    with quiet():
        model, info = getattr(transformers, architecture.model).from_pretrained(
            folder, output_loading_info=True, **options
        )
    missing = set(info["missing_keys"])
    without_pooler = {name for name in missing if pooler and pooler.weights and name.startswith(pooler.weights)}
    if missing - without_pooler:
        raise StartupError(
            f"{folder} lacks weights that the model needs: {', '.join(sorted(missing - without_pooler))}"
        )
    if info["mismatched_keys"]:
        raise StartupError(f"{folder} has weights of other shapes than its config.json says: {info['mismatched_keys']}")
    has_pooler = pooler is not None and not without_pooler and options.get("add_pooling_layer", True)
    return model.eval(), has_pooler


def stored_names(folder: Path) -> set[str]:
    """Names of all weights in a folder's safetensors."""
    names: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            names.update(weights.keys())
    return names


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' table of unused classifier weights and its bars for a local read."""
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
