"""The table model_type → where an architecture keeps its class token, its patches and its own pooling.

One row per family. A `model_type` that has no row is refused by name, before any of its files is read by transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from iei.errors import StartupError


@dataclass(frozen=True, slots=True)
class Pooler:
    """A model's own pooling."""

    weights: str = ""
    """Prefix of the names of its weights in the module. Empty: it has none, so no checkpoint can lack them."""
    field: str = "pooler_output"
    """Where the model's output carries its result, [B, D] or [B, D, 1, 1]."""
    removable: bool = False
    """Whether the class takes `add_pooling_layer=False`."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One family of vision models."""

    model: str
    """Name of the class in transformers."""
    layout: Literal["tokens", "map"] = "tokens"
    """Shape of the last hidden state: `tokens` [B, N, D], or a feature `map` [B, D, H, W]."""
    class_token: int | None = None
    """Index of the class token."""
    prefix: int = 0
    """Tokens before the first patch: class and distillation tokens."""
    registers: str | None = None
    """Attribute of the config that counts the register tokens; they follow the prefix."""
    pooler: Pooler | None = None
    sizes: Literal["fixed", "interpolate", "any"] = "fixed"
    """Other sizes than the checkpoint's: refused, computed with `interpolate_pos_encoding=True`, or simply computed."""

    def first_patch(self, config: Any) -> int:
        """Index of the first patch token."""
        return self.prefix + (getattr(config, self.registers) if self.registers else 0)


ARCHITECTURES: Mapping[str, Architecture] = {
    "vit": Architecture(
        "ViTModel", class_token=0, prefix=1, pooler=Pooler("pooler.", removable=True), sizes="interpolate"
    ),
}


def architecture_of(model_type: object) -> Architecture:
    """The row of a `config.json`'s `model_type`; StartupError with the list of rows where there is none."""
    row = ARCHITECTURES.get(model_type) if isinstance(model_type, str) else None
    if row is None:
        raise StartupError(
            f"model_type {model_type!r} is not supported; IEI serves these: {', '.join(sorted(ARCHITECTURES))}"
        )
    return row
