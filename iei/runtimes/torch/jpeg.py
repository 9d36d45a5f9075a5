"""JPEGs decoded on a GPU, by nvJPEG: the only code that knows torchcodec."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from iei.errors import StartupError


def software() -> str:
    """Name and version of the library. It brings nvJPEG along, so this says which one."""
    return f"torchcodec {version('torchcodec')}"


def decode(files: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> list[Tensor]:
    """Decodes JPEGs, all in one call, and waits for it; on the current stream of the device.

    Returns:
        Pictures as the files have them, uint8[3, H, W] on the device, or uint8[1, H, W] of grey ones.

    Raises:
        RuntimeError: a file is damaged, or is none that nvJPEG decodes; which one, it does not say.
    """
    from torchcodec.decoders import decode_jpeg  # optional

    pictures: list[Tensor] = decode_jpeg(
        [torch.from_numpy(file) for file in files],
        # Not "RGB": grey pictures would be decoded as what they are not, and become RGB after the resize for less.
        mode="UNCHANGED",
        device=device,
    )
    return pictures


def check(device: torch.device) -> None:
    """Decodes a picture.

    Raises:
        StartupError: the library can't be loaded, or does not decode on this device.
    """
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    try:
        decode([np.frombuffer(file.getbuffer(), np.uint8)], device)
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StartupError(f"torchcodec does not decode JPEGs on {device}: {reason}: set IEI_DECODE_ON=cpu.") from error
