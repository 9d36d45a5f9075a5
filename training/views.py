"""What a camera does to a picture: random views of a batch of drawings, made only where the model will look.

A view keeps few of its patches (as in FLIP, arXiv:2212.00794), and only the pixels of these are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

GRID, PATCH = 14, 16
SIDE = GRID * PATCH


class Views(NamedTuple):
    """Patches of a batch of views."""

    pixels: Tensor
    """float32[B, K, 3, PATCH, PATCH], normalised to -1…1."""
    places: Tensor
    """int64[B, K]: which patches of the grid these are, row by row."""
    origins: Tensor
    """float32[B, K, 2]: where in the drawing the middle of each lies: x and y, -1…1."""


def views(drawings: Tensor, keep: int, random: torch.Generator, *, is_written: bool = False) -> Views:
    """One random view of each drawing.

    Args:
        drawings: float32[B, 3, SIDE, SIDE], 0…1.
        keep: patches that are kept.
        random: decides about all.
        is_written: they are glyphs, which a mirror would make others; but no two people write them alike.
    """
    many = len(drawings)
    places = torch.rand(many, GRID * GRID, generator=random).argsort(1)[:, :keep]
    within = (torch.arange(PATCH) + 0.5) / PATCH
    rows, columns = places // GRID, places % GRID
    y = (rows[..., None] + within) / GRID * 2 - 1
    x = (columns[..., None] + within) / GRID * 2 - 1
    seen = torch.stack(
        [x[:, :, None, :].expand(-1, -1, PATCH, -1), y[:, :, :, None].expand(-1, -1, -1, PATCH)], -1
    )  # [B, K, PATCH, PATCH, 2]
    grid = _through_lens(_written(seen, random) if is_written else _mirrored(seen, random), random)
    pixels = functional.grid_sample(drawings, grid.flatten(1, 2), "bilinear", "reflection", align_corners=False)
    pixels = pixels.unflatten(2, (keep, PATCH)).transpose(1, 2)
    pixels = _developed(pixels, random)
    return Views(pixels * 2 - 1, places, grid.mean((2, 3)))


def joined(pieces: Sequence[Views]) -> Views:
    """Pieces of a batch as one."""
    return Views(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))


@dataclass(frozen=True)
class _Dice:
    """Random numbers for a batch, one per view, in a shape that broadcasts over the views' pixels."""

    random: torch.Generator
    shape: tuple[int, ...]

    def uniform(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(self.shape, generator=self.random)

    def chance(self, share: float) -> Tensor:
        return self.uniform(0, 1) < share


def _through_lens(seen: Tensor, random: torch.Generator) -> Tensor:
    """Maps places of the view to places of the drawing: perspective, crop, turn. Both [B, K, PATCH, PATCH, 2]."""
    dice = _Dice(random, (len(seen), 1, 1, 1))
    x, y = seen.unbind(-1)
    tilted = dice.chance(0.5)
    depth = 1 + (dice.uniform(-0.2, 0.2) * x + dice.uniform(-0.2, 0.2) * y) * tilted
    side = torch.exp(dice.uniform(-1.2, 0.05)).sqrt()  # of the drawing's area: three tenths to all
    shape = torch.exp(dice.uniform(-0.15, 0.15))
    wide, high = side * shape, side / shape
    x = x / depth * wide
    y = y / depth * high
    turn = dice.uniform(-0.35, 0.35) * dice.chance(0.5)
    x, y = turn.cos() * x - turn.sin() * y, turn.sin() * x + turn.cos() * y
    x = x + dice.uniform(-1, 1) * (1 - wide).clamp(min=0)
    y = y + dice.uniform(-1, 1) * (1 - high).clamp(min=0)
    return torch.stack([x, y], -1)


def _mirrored(seen: Tensor, random: torch.Generator) -> Tensor:
    """Left and right exchanged in some of the views."""
    dice = _Dice(random, (len(seen), 1, 1, 1))
    x, y = seen.unbind(-1)
    return torch.stack([x * torch.where(dice.chance(0.3), -1, 1), y], -1)


def _written(seen: Tensor, random: torch.Generator) -> Tensor:
    """Slanted and bent, as by another hand."""
    dice = _Dice(random, (len(seen), 1, 1, 1))
    x, y = seen.unbind(-1)
    slant = dice.uniform(-0.35, 0.35)
    bends = [
        dice.uniform(0, 0.07) * torch.sin(dice.uniform(2, 6) * along + dice.uniform(0, 6.3)) for along in (x, y, x, y)
    ]
    return torch.stack([x + slant * y + bends[0] + bends[1], y + bends[2] + bends[3]], -1)


def _developed(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Colour, light, blur, noise, JPEG: the last three each on some of the views. [B, K, 3, PATCH, PATCH], 0…1."""
    dice = _Dice(random, (len(pixels), 1, 1, 1, 1))
    grey = pixels.mean(2, keepdim=True)
    pixels = grey + (pixels - grey) * dice.uniform(0.5, 1.5)
    pixels = torch.where(dice.chance(0.12), grey, pixels)
    pixels = pixels * torch.cat([dice.uniform(0.88, 1.12) for _ in range(3)], 2)
    middle = pixels.mean((1, 2, 3, 4), keepdim=True)
    pixels = middle + (pixels - middle) * dice.uniform(0.6, 1.4)
    pixels = (pixels * dice.uniform(0.6, 1.4)).clamp(1e-3, 1) ** torch.exp(dice.uniform(-0.4, 0.4))
    for damage, least, most in ((_blurred, 0.3, 2.5), (_noisy, 0.0, 0.06), (_jpeg, 0.03, 0.2)):
        some = dice.chance(0.4).flatten()
        pixels[some] = damage(pixels[some], dice.uniform(least, most)[some], random)
    return pixels.clamp(0, 1)


def _blurred(pixels: Tensor, sigma: Tensor, _: torch.Generator) -> Tensor:
    """A Gaussian blur inside every patch, as one matrix for rows and columns: nothing crosses a patch's border."""
    at = torch.arange(PATCH, dtype=torch.float32)
    kernel = torch.exp(-((at[:, None] - at) ** 2) / (2 * sigma**2))
    kernel = kernel / kernel.sum(-1, keepdim=True)
    return kernel @ pixels @ kernel.transpose(-1, -2)


def _noisy(pixels: Tensor, deviation: Tensor, random: torch.Generator) -> Tensor:
    return pixels + torch.randn(pixels.shape, generator=random) * deviation


def _jpeg(pixels: Tensor, coarseness: Tensor, _: torch.Generator) -> Tensor:
    """What quantising the cosines of 8×8 blocks leaves, higher frequencies more coarsely. Patches are whole blocks."""
    at = torch.arange(8, dtype=torch.float32)
    basis = torch.cos(torch.pi * at[:, None] * (2 * at + 1) / 16) / 2
    basis[0] /= 2**0.5
    both = torch.block_diag(basis, basis)
    steps = (0.2 + (at[:, None] + at) / 7).repeat(2, 2) * coarseness
    return both.T @ (torch.round(both @ pixels @ both.T / steps) * steps) @ both
