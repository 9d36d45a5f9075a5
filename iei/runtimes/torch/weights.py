"""Folder → transformers module, with all of its weights checked.

transformers fills weights that a checkpoint lacks with random numbers and a warning: the same picture would get another
vector after each start. Here, a pooling that lacks weights is not offered, and a model that lacks others is refused.
"""

from __future__ import annotations

import contextlib
import json
import logging
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

from iei.checkpoints.files import weight_files
from iei.checkpoints.text_architectures import TextArchitecture
from iei.checkpoints.vision_architectures import VisionArchitecture
from iei.errors import StartupError
from iei.runtimes.torch.device import Placement

UNUSED = ("mask_token", "num_batches_tracked")
"""Ends of the names of weights that only training uses, so that a checkpoint may lack them."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint's model with all of its weights."""

    module: Any
    """The transformers model, on its device, in evaluation mode."""
    pooler: bool
    """Whether its own pooling can be offered: the checkpoint has the weights for it, or it needs none."""


def load_weights(
    folder: Path, architecture: VisionArchitecture | TextArchitecture, placement: Placement, *, allow_pickle: bool
) -> Weights:
    """Loads a checkpoint's model.

    Args:
        folder: the checkpoint's.
        architecture: the row of its family.
        placement: where and how to compute.
        allow_pickle: whether the weights may be in a pickle.

    Raises:
        StartupError: weights are missing, have other shapes than the config says, or can't be read.
    """
    stored = _Stored.find(folder, allow_pickle)
    pooler = architecture.pooler
    options: dict[str, Any] = {}
    if pooler and pooler.removable:
        options["add_pooling_layer"] = any(f".{pooler.weights}" in f".{name}" for name in stored.names())
    module, info = _load(folder, architecture, placement, stored, options)
    mismatched = sorted(
        f"{name} {tuple(has)} instead of {tuple(wants)}" for name, has, wants in info["mismatched_keys"]
    )
    if mismatched:
        raise StartupError(f"Weights in {folder} have other shapes than its config.json says: {_some(mismatched)}.")
    missing = {name for name in info["missing_keys"] if not name.endswith(UNUSED)}
    missing_for_pooler = {name for name in missing if pooler and pooler.weights and name.startswith(pooler.weights)}
    if missing != missing_for_pooler:
        raise StartupError(
            f"{folder} is no complete {architecture.model}: these weights are missing: "
            f"{_some(sorted(missing - missing_for_pooler))}."
        )
    return Weights(module.eval(), pooler is not None and _has(module, pooler.weights) and not missing_for_pooler)


def stored_numbers(folder: Path, names: Collection[str], *, allow_pickle: bool) -> dict[str, float]:
    """Returns the weights of a checkpoint that are single numbers, as they are stored.

    A loaded module has them in the precision of its other weights: bfloat16 would change a scale of 100 to 98.9.

    Args:
        folder: the checkpoint's.
        names: the names of the weights; those that the checkpoint lacks are left out.
        allow_pickle: whether the weights may be in a pickle.

    Raises:
        StartupError: the weights can't be read.
    """
    found = _Stored.find(folder, allow_pickle).read(names)
    return {name: float(weight.to(torch.float64).reshape(())) for name, weight in found.items()}


def _load(
    folder: Path,
    architecture: VisionArchitecture | TextArchitecture,
    placement: Placement,
    stored: _Stored,
    options: Mapping[str, Any],
) -> tuple[Any, dict[str, Any]]:
    model_class = getattr(transformers, architecture.model)
    attention = placement.attention
    if attention == "auto":
        attention = "sdpa" if model_class._supports_sdpa else "eager"
    try:
        with quiet():
            module, info = model_class.from_pretrained(
                folder,
                config=_config(folder, architecture),
                dtype=placement.dtype,
                attn_implementation=attention,
                use_safetensors=stored.safetensors,
                weights_only=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **_quantized(placement),
                **options,
            )
            return (module if placement.quantization != "none" else module.to(placement.device)), info
    except torch.OutOfMemoryError as error:
        raise StartupError(
            f"{folder} does not fit into the memory of {placement.device}: use a smaller one or IEI_DTYPE=bfloat16."
        ) from error
    except Exception as error:  # a broken config or file can make transformers raise anything
        raise StartupError(
            f"{folder} can't be loaded as {architecture.model} ({_reason(error)}): "
            "check that its config.json and its weights are whole and belong together."
        ) from error


def _config(folder: Path, architecture: VisionArchitecture | TextArchitecture) -> Any:
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if isinstance(architecture, TextArchitecture) or architecture.tower is None:
        return config
    tower = getattr(config, architecture.tower)
    if hasattr(tower, "projection_dim"):
        # The tower's own value is an unused default: the model was made with the outer one.
        tower.projection_dim = config.projection_dim
    return tower


def _quantized(placement: Placement) -> dict[str, Any]:
    if placement.quantization == "none":
        return {}
    bits = {"bitsandbytes-8bit": "load_in_8bit", "bitsandbytes-4bit": "load_in_4bit"}[placement.quantization]
    config = transformers.BitsAndBytesConfig(**{bits: True}, bnb_4bit_compute_dtype=placement.dtype)
    return {"quantization_config": config, "device_map": {"": placement.device}}


def _has(module: Any, prefix: str) -> bool:
    return not prefix or any(name.startswith(prefix) for name, _ in module.named_parameters())


@dataclass(frozen=True, slots=True)
class _Stored:
    """A checkpoint's weights on disk: one file, or an index of several."""

    file: Path
    safetensors: bool

    @staticmethod
    def find(folder: Path, allow_pickle: bool) -> _Stored:
        file, *_ = weight_files([file.name for file in folder.iterdir()], folder, allow_pickle=allow_pickle)
        return _Stored(folder / file, safetensors=".safetensors" in file)

    def names(self) -> set[str]:
        """Returns the names of all weights."""
        with self._reading():
            return set(self._files())

    def read(self, names: Collection[str]) -> dict[str, torch.Tensor]:
        """Returns those of the weights called `names` that there are, as they are stored."""
        with self._reading():
            files = self._files()
            return {name: self._weight(files[name], name) for name in names if name in files}

    def _files(self) -> Mapping[str, Path]:
        """Returns name of a weight → the file that has it."""
        if self.file.suffix == ".json":
            index = json.loads(self.file.read_text(encoding="utf-8"))["weight_map"]
            return {name: self.file.parent / file for name, file in index.items()}
        if self.safetensors:
            with safe_open(self.file, framework="pt") as weights:
                return dict.fromkeys(weights.keys(), self.file)
        return dict.fromkeys(torch.load(self.file, map_location="meta", weights_only=True), self.file)

    def _weight(self, file: Path, name: str) -> torch.Tensor:
        if self.safetensors:
            with safe_open(file, framework="pt") as weights:
                stored: torch.Tensor = weights.get_tensor(name)
                return stored
        pickled: torch.Tensor = torch.load(file, map_location="cpu", weights_only=True)[name]
        return pickled

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise StartupError(f"{self.file} can't be read ({_reason(error)}): download or copy it again.") from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _reason(error: Exception) -> str:
    """Returns the error on one line, shortened: transformers writes paragraphs."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" …")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers from printing its table of unused weights and its progress bars."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
