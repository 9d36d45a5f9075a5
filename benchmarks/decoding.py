"""Limits for decoding without a server, which nothing here comes near to."""

from __future__ import annotations

from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits

LIMITS = DecodeLimits(max_pixels=64_000_000, max_side=65_535, budget=PixelBudget(64_000_000))
