"""Texts of any lengths → one rectangle of token ids, the same for all runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Padding:
    """How a model's texts are padded."""

    id: int
    """Fills the places after a text."""
    length: int | None
    """What all batches are padded to; None: to their longest text."""
    vocabulary: int
    """How many ids have an embedding."""

    def batch(self, texts: Sequence[Ids]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Pads texts to one length.

        Args:
            texts: token ids, int32 [L] of any lengths.

        Returns:
            Ids int64 [B, L] and mask float32 [B, L]; padding comes last and has the mask 0.

        Raises:
            ValueError: an id has no embedding. On a GPU, the forward would make the whole device unusable.
        """
        lengths = [len(text) for text in texts]
        shape = (len(texts), self.length or max(lengths))
        ids, mask = np.full(shape, self.id, np.int64), np.zeros(shape, np.float32)
        for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            ids[row, :length], mask[row, :length] = text, 1.0
        if ids.max() >= self.vocabulary:
            raise ValueError(f"token id {ids.max()} is outside the model's vocabulary of {self.vocabulary}")
        return ids, mask
