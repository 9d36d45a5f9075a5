"""Tokens of pictures → vectors: the poolings that a client may ask for, computed in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, float32


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """Where the class token and the patches are in a last hidden state [B, N, D]."""

    class_token: int | None
    """Its index; None if there is none."""
    first_patch: int
    """Index of the first patch; all that follow are patches."""


VISION_POOLINGS: Mapping[str, Callable[[Tensor, TokenLayout], Tensor]] = {
    "cls": lambda tokens, layout: tokens[:, layout.class_token].to(float32),
    "mean": lambda tokens, layout: tokens.mean(1, dtype=float32),
    "patch_mean": lambda tokens, layout: tokens[:, layout.first_patch :].mean(1, dtype=float32),
    "max": lambda tokens, layout: tokens[:, layout.first_patch :].amax(1).to(float32),
    "patches": lambda tokens, layout: tokens[:, layout.first_patch :].to(float32),
    "tokens": lambda tokens, layout: tokens.to(float32),
}
"""Output → its function of the last hidden state [B, N, D]. `pooler` is not here: the model computes it itself."""


def poolings_of(layout: TokenLayout) -> list[str]:
    """Returns the outputs that a last hidden state of this layout has."""
    return [name for name in VISION_POOLINGS if name != "cls" or layout.class_token is not None]


def as_tokens(feature_map: Tensor) -> Tensor:
    """Feature map [B, D, H, W] → tokens [B, H·W, D], row by row."""
    return feature_map.flatten(2).transpose(1, 2)
