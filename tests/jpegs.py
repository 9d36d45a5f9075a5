"""JPEGs decoded as a device does, by Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image


def decoded_by_pillow(files: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
    """Pictures uint8[H, W, 3], or uint8[H, W, 1] of grey ones.

    Raises:
        RuntimeError: a file is damaged; which one, it does not say.
    """
    try:
        pictures = [np.array(Image.open(io.BytesIO(file.tobytes()), formats=["JPEG"])) for file in files]
    except OSError as error:
        raise RuntimeError("nvjpegDecode failed: 5") from error
    return [picture.reshape(*picture.shape[:2], -1) for picture in pictures]
