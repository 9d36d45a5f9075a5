"""The text side of a loaded checkpoint: token ids in, named outputs out, all of it on the device."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from iei.checkpoints.checkpoint import TextFiles
from iei.checkpoints.text_architectures import TextArchitecture
from iei.runtimes.api import TextSide
from iei.runtimes.padding import Ids, Padding
from iei.runtimes.torch.device import Placement
from iei.runtimes.torch.text_head import TextHead
from iei.runtimes.torch.text_pooling import TEXT_POOLINGS
from iei.runtimes.torch.weights import Weights


class TextModel(nn.Module):
    """A transformers text model, with padding before it and poolings after it."""

    def __init__(
        self,
        weights: Weights,
        architecture: TextArchitecture,
        files: TextFiles,
        placement: Placement,
        *,
        head: TextHead | None = None,
    ) -> None:
        super().__init__()
        self.model = weights.module
        if hasattr(self.model.config, "use_cache"):
            self.model.config.use_cache = False  # of keys and values, which only generating texts needs
        self.head = head
        self._architecture = architecture
        self._files = files
        self._device = placement.device
        pooling = "pooler" if head else files.pipeline.pooling[0]
        own = ("pooler",) if head or weights.pooler else ()
        outputs = tuple(dict.fromkeys((*architecture.poolings, pooling, *own, "tokens")))
        self.side = TextSide(outputs, pooling, max_tokens=self._limit())
        self.padding = Padding(
            id=self._pad_id(),
            length=self.side.max_tokens if architecture.fixed_length else None,
            vocabulary=self.model.config.vocab_size,
        )

    def batch(self, texts: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Pads texts to one length, as `Padding.batch`.

        Args:
            texts: token ids, int32 [L] of any lengths.

        Returns:
            Ids int64 [B, L] and mask float32 [B, L], on the device.

        Raises:
            ValueError: an id has no embedding. On a GPU, the forward would make the whole device unusable.
        """
        ids, mask = self.padding.batch(texts)
        return torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device)

    def forward(self, ids: Tensor, mask: Tensor, outputs: Collection[str]) -> dict[str, Tensor]:
        """Computes one batch.

        Args:
            ids: as `batch` returns them.
            mask: as `batch` returns it.
            outputs: names of what to compute, of `side.outputs`.

        Returns:
            Output name → float32 [B, dim] or, for `tokens`, [B, L, dim] with rows for the padding, too.
        """
        result = self.model(input_ids=ids, attention_mask=None if self.padding.length else mask.long())
        tokens = result.last_hidden_state.to(torch.float32)
        return {name: self._output(name, tokens, mask, result) for name in outputs}

    def _output(self, name: str, tokens: Tensor, mask: Tensor, result: Any) -> Tensor:
        if name == "tokens":
            return tokens
        if name != "pooler":
            return TEXT_POOLINGS[name](tokens, mask)
        pooled: Tensor = self.head(tokens, mask) if self.head else result.pooler_output.to(torch.float32)
        return pooled

    def _pad_id(self) -> int:
        """Returns the id of the padding: the tokenizer's, if the model has an embedding for it."""
        config = self.model.config
        known = (self._files.tokenizer.pad_id, config.pad_token_id)
        return next((id for id in known if id is not None and 0 <= id < config.vocab_size), 0)

    def _limit(self) -> int:
        """Returns the longest text in tokens, special tokens included."""
        config = self.model.config
        positions = self._architecture.max_positions(config.max_position_embeddings, config.pad_token_id)
        return min(self._files.pipeline.max_tokens or self._files.tokenizer.max_tokens or positions, positions)
