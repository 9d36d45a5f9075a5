"""CUDA streams that nothing else here uses.

torch makes 32 streams for each device, and hands them out in turn. So after some loads a new model would be given a
stream of a model that is loaded: what the engine's thread does there would end up in the graphs that are recorded.
"""

from __future__ import annotations

import weakref

import torch

from iei.errors import StartupError

RING = 32
"""`kStreamsPerPool` in torch's c10/cuda/CUDAStream.cpp."""

_in_use: set[int] = set()
"""Handles, which are unique in a process. Models are loaded one after the other: nobody else draws meanwhile."""


def own_stream(device: torch.device) -> torch.cuda.Stream:
    """Returns a stream that is given to nobody else until it is no longer referenced.

    Raises:
        StartupError: all are in use.
    """
    for _ in range(RING):
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        handle: int = stream.cuda_stream
        if handle not in _in_use:
            _in_use.add(handle)
            weakref.finalize(stream, _in_use.discard, handle).atexit = False
            return stream
    raise StartupError(f"The models use all {RING} streams of {device}: lower IEI_MAX_LOADED_MODELS.")
