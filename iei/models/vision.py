"""The image side of a loaded checkpoint: pixels in, named outputs out, all of it on the device."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from iei.models.architectures import Architecture
from iei.models.pooling import POOLINGS, TokenLayout, as_tokens, poolings_of
from iei.models.spec import Geometry


class VisionModel(nn.Module):
    """A transformers vision model with its rescaling and normalisation before it and the poolings behind it."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Any, architecture: Architecture, geometry: Geometry, *, pooler: bool) -> None:
        """`pooler`: whether the checkpoint has what the model's own pooling needs."""
        super().__init__()
        self.model = model
        self.architecture = architecture
        self.geometry = geometry
        self.layout = TokenLayout(architecture.class_token, architecture.first_patch(model.config))
        self.outputs = (*poolings_of(self.layout), *(("pooler",) if pooler else ()))
        std = torch.tensor(geometry.std, dtype=torch.float32)
        mean = torch.tensor(geometry.mean, dtype=torch.float32)
        # (pixel · scale - mean) / std, as one multiplication and one addition.
        self.register_buffer("scale", (geometry.scale / std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor, outputs: Collection[str]) -> dict[str, Tensor]:
        """`pixels`: uint8 or float32 [B, H, W, 3]. Output name → float32 [B, dim] or [B, rows, dim]."""
        values = torch.addcmul(self.shift, pixels.permute(0, 3, 1, 2).to(torch.float32), self.scale)
        result = self.model(pixel_values=values.to(self.model.dtype), **self._size_options(pixels))
        hidden = result.last_hidden_state
        tokens = as_tokens(hidden) if self.architecture.layout == "map" else hidden
        return {name: self._pooled(name, tokens, result) for name in outputs}

    def _size_options(self, pixels: Tensor) -> dict[str, bool]:
        if self.architecture.sizes != "interpolate" or tuple(pixels.shape[1:3]) == self.geometry.size:
            return {}
        return {"interpolate_pos_encoding": True}

    def _pooled(self, name: str, tokens: Tensor, result: Any) -> Tensor:
        if name != "pooler":
            return POOLINGS[name](tokens, self.layout)
        assert self.architecture.pooler is not None
        pooled: Tensor = getattr(result, self.architecture.pooler.field)
        return pooled.flatten(1).to(torch.float32)
