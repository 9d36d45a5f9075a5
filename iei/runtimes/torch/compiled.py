"""A forward that torch's inductor has compiled for the GPU."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from iei.runtimes.torch.graphs import Forward

INDUCTOR_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def compiled(forward: Forward, cache: Path) -> Forward:
    """Returns `forward`, to be compiled by its first calls: the first batch size gets kernels of its own, others share.

    Args:
        forward: of the eager model.
        cache: where the kernels are kept for later starts, unless `TORCHINDUCTOR_CACHE_DIR` says where.
    """
    os.environ.setdefault(INDUCTOR_CACHE, str(cache))
    work: Forward = torch.compile(forward)
    return work
