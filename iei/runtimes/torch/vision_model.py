"""The image side of a loaded checkpoint: pixels in, named outputs out, all of it on the device."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from iei.checkpoints.vision_architectures import VisionArchitecture
from iei.models.spec import Geometry
from iei.runtimes.api import ImageSide
from iei.runtimes.torch.device import Placement
from iei.runtimes.torch.vision_pooling import VISION_POOLINGS, TokenLayout, as_tokens, poolings_of
from iei.runtimes.torch.weights import Weights


class Hidden(NamedTuple):
    """What a forward gives, before any output is made of it; on the device."""

    tokens: Tensor
    """The last hidden state [B, N, D]."""
    pooled: Tensor | None
    """The model's own pooling [B, …]; None if it has none."""

    def first(self, count: int) -> Hidden:
        """Of the first `count` pictures."""
        return Hidden(self.tokens[:count], None if self.pooled is None else self.pooled[:count])


class VisionModel(nn.Module):
    """A transformers vision model, with rescaling and normalisation before it and poolings after it."""

    scale: Tensor
    shift: Tensor

    def __init__(
        self, weights: Weights, architecture: VisionArchitecture, geometry: Geometry, placement: Placement
    ) -> None:
        super().__init__()
        self.model = weights.module
        self.architecture = architecture
        self.geometry = geometry
        self.dtype = placement.dtype
        self.layout = TokenLayout(architecture.class_token, architecture.first_patch(self.model.config))
        self.side = ImageSide(
            outputs=(*poolings_of(self.layout), *(("pooler",) if weights.pooler else ())),
            stride=architecture.stride(self.model.config),
            any_size=architecture.sizes != "fixed",
        )
        mean, std = (torch.tensor(values, device=placement.device) for values in (geometry.mean, geometry.std))
        # (pixel · scale - mean) / std, as one multiplication and one addition.
        self.register_buffer("scale", (geometry.scale / std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor, outputs: Collection[str]) -> dict[str, Tensor]:
        """Computes one batch.

        Args:
            pixels: uint8 or float32 [B, H, W, 3], on the model's device.
            outputs: names of what to compute, of `side.outputs`.

        Returns:
            Output name → float32 [B, dim] or [B, rows, dim].

        Raises:
            ValueError: the model can't compute this size. Some models raise RuntimeError instead.
        """
        return self.outputs(self.hidden(pixels), outputs)

    def hidden(self, pixels: Tensor) -> Hidden:
        """The first part of `forward`, and nearly all of its time."""
        values = torch.addcmul(self.shift, pixels.permute(0, 3, 1, 2).to(torch.float32), self.scale)
        result = self.model(pixel_values=values.to(self.dtype), **self._size_options(pixels))
        hidden = result.last_hidden_state
        tokens = as_tokens(hidden) if self.architecture.layout == "map" else hidden
        return Hidden(tokens, self._pooled(result))

    def outputs(self, hidden: Hidden, names: Collection[str]) -> dict[str, Tensor]:
        """The second part of `forward`: the named outputs, of any hidden states."""
        return {name: self._output(name, hidden) for name in names}

    def _size_options(self, pixels: Tensor) -> dict[str, bool]:
        if self.architecture.sizes != "interpolate":
            return {}
        trained = self.model.config.image_size
        height, width = (trained, trained) if isinstance(trained, int) else trained
        return {"interpolate_pos_encoding": True} if pixels.shape[1:3] != (height, width) else {}

    def _pooled(self, result: Any) -> Tensor | None:
        if "pooler" not in self.side.outputs:
            return None
        assert self.architecture.pooler is not None
        pooled: Tensor = getattr(result, self.architecture.pooler.field)
        return pooled

    def _output(self, name: str, hidden: Hidden) -> Tensor:
        if name != "pooler":
            return VISION_POOLINGS[name](hidden.tokens, self.layout)
        assert hidden.pooled is not None
        return hidden.pooled.flatten(1).to(torch.float32)
