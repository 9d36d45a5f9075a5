"""Text → token ids, with the checkpoint's own tokenizer, in the worker."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from iei.errors import InvalidField
from iei.models.spec import TextTower


def encode(source: str | tuple[int, ...], tower: TextTower, options: object) -> npt.NDArray[np.int32]:
    """Token ids int32[L] of a text, special tokens included."""
    raise InvalidField("texts are not served yet")
