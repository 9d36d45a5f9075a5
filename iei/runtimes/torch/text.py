"""The text side of a loaded checkpoint: token ids in, named outputs out, all of it on the device."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from iei.checkpoints.sentence_transformers import Pipeline, read_pipeline
from iei.checkpoints.text_architectures import TextArchitecture
from iei.checkpoints.tokenizer import TokenizerFile, read_tokenizer
from iei.models.spec import TextTower
from iei.runtimes.torch.device import Placement
from iei.runtimes.torch.text_head import TextHead, load_head
from iei.runtimes.torch.text_pooling import TEXT_POOLINGS
from iei.runtimes.torch.weights import Weights, load_weights

Ids = npt.NDArray[np.int32]


def load_text(folder: Path, architecture: TextArchitecture, placement: Placement, *, allow_pickle: bool) -> TextModel:
    """A checkpoint of a text model. Raises StartupError, one sentence."""
    pipeline, tokenizer = read_pipeline(folder), read_tokenizer(folder)
    weights = load_weights(folder, architecture, placement, allow_pickle=allow_pickle)
    head = load_head(pipeline, weights.module.config.hidden_size, placement.device, allow_pickle=allow_pickle)
    return TextModel(weights, architecture, tokenizer, pipeline, placement, head=head)


class TextModel(nn.Module):
    """A transformers text model, with padding before it and the poolings behind it."""

    def __init__(
        self,
        weights: Weights,
        architecture: TextArchitecture,
        tokenizer: TokenizerFile,
        pipeline: Pipeline,
        placement: Placement,
        *,
        head: TextHead | None = None,
    ) -> None:
        super().__init__()
        self.model = weights.module
        if hasattr(self.model.config, "use_cache"):
            self.model.config.use_cache = False  # of keys and values: only texts that go on need them
        self.head = head
        self._architecture = architecture
        self._tokenizer = tokenizer
        self._pipeline = pipeline
        self._device = placement.device
        self._max_tokens = self._limit()
        self._pad_to = self._max_tokens if architecture.fixed_length else None
        self._pad_id = self._padding()
        self.pooling = "pooler" if head else pipeline.pooling[0]
        """What the checkpoint was trained for."""
        own = ("pooler",) if head or weights.pooler else ()
        self.outputs = tuple(dict.fromkeys((*architecture.poolings, self.pooling, *own, "tokens")))

    def tower(self) -> TextTower:
        """What workers need to know. Computes one text, which warms the model up as well."""
        with torch.inference_mode():
            results = self(*self.batch([np.zeros(1, np.int32)]), self.outputs)
        return TextTower(
            tokenizer=str(self._tokenizer.path),
            outputs={name: value.shape[-1] for name, value in results.items()},
            max_tokens=self._max_tokens,
            pooling=self.pooling,
            normalize=self._pipeline.normalize,
            prompts=self._pipeline.prompts,
            default_prompt=self._pipeline.default_prompt,
            lowercase=self._pipeline.lowercase,
        )

    def batch(self, texts: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Ids of texts → ids int64 [B, L] and mask float32 [B, L], on the device; padding comes last.

        Raises:
            ValueError: an id that the model has no embedding for. On a GPU the forward would take the device down.
        """
        lengths = [len(text) for text in texts]
        shape = (len(texts), self._pad_to or max(lengths))
        ids, mask = np.full(shape, self._pad_id, np.int64), np.zeros(shape, np.float32)
        for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            ids[row, :length], mask[row, :length] = text, 1.0
        vocabulary = self.model.config.vocab_size
        if ids.max() >= vocabulary:
            raise ValueError(f"token id {ids.max()} is outside the model's vocabulary of {vocabulary}")
        return torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device)

    def forward(self, ids: Tensor, mask: Tensor, outputs: Collection[str]) -> dict[str, Tensor]:
        """What `batch` gives. Output name → float32 [B, dim], or [B, L, dim] with rows for the padding, too."""
        result = self.model(input_ids=ids, attention_mask=None if self._pad_to else mask.long())
        tokens = result.last_hidden_state.to(torch.float32)
        return {name: self._output(name, tokens, mask, result) for name in outputs}

    def _output(self, name: str, tokens: Tensor, mask: Tensor, result: Any) -> Tensor:
        if name == "tokens":
            return tokens
        if name != "pooler":
            return TEXT_POOLINGS[name](tokens, mask)
        pooled: Tensor = self.head(tokens, mask) if self.head else result.pooler_output.to(torch.float32)
        return pooled

    def _padding(self) -> int:
        """The tokenizer's, unless that was added to the tokenizer alone and has no embedding."""
        config = self.model.config
        known = (self._tokenizer.pad_id, config.pad_token_id)
        return next((id for id in known if id is not None and 0 <= id < config.vocab_size), 0)

    def _limit(self) -> int:
        """Longest text, special tokens included."""
        config = self.model.config
        positions = self._architecture.max_positions(config.max_position_embeddings, config.pad_token_id)
        return min(self._pipeline.max_tokens or self._tokenizer.max_tokens or positions, positions)
