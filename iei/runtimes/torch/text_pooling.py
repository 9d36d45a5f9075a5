"""Tokens of texts → vectors, in float32 and without the padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    return _sum(tokens, mask) / mask.sum(1, keepdim=True)


def _mean_sqrt(tokens: Tensor, mask: Tensor) -> Tensor:
    return _sum(tokens, mask) / mask.sum(1, keepdim=True).sqrt()


def _weighted_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Later tokens weigh more: 1, 2, 3 … (SGPT, https://arxiv.org/abs/2202.08904)."""
    weights = mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return _sum(tokens, weights) / weights.sum(1, keepdim=True)


def _max(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(1)


def _last(tokens: Tensor, mask: Tensor) -> Tensor:
    rows = torch.arange(tokens.shape[0], device=tokens.device)  # `len` would be a constant in a traced graph
    return tokens[rows, mask.sum(1).long() - 1]


def _sum(tokens: Tensor, weights: Tensor) -> Tensor:
    return (tokens * weights.unsqueeze(-1)).sum(1)


TEXT_POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": lambda tokens, mask: tokens[:, 0],
    "mean": _mean,
    "max": _max,
    "last": _last,
    "mean_sqrt": _mean_sqrt,
    "weighted_mean": _weighted_mean,
}
"""Pooling → its function of float32 tokens [B, L, D] and their mask [B, L]: 1.0 for text, then 0.0 for padding."""
