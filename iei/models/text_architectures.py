"""The table model_type → how an architecture reads texts: the counterpart of `architectures` for language.

One row per family, each held against transformers by tests/models/test_text_parity.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iei.models.architectures import Pooler


@dataclass(frozen=True, slots=True)
class TextArchitecture:
    """One family of text models."""

    model: str
    """Name of the class in transformers."""
    poolings: tuple[str, ...] = ("cls", "mean", "max", "last")
    """Poolings of the tokens that make sense. A checkpoint's own sentence-transformers files may add one."""
    pooler: Pooler | None = None
    """The model's own pooling."""
    positions_after_padding: bool = False
    """Positions count from `pad_token_id + 1`, so the table of positions has that many rows for nobody."""
    masked: bool = True
    """Padding is masked out. Without, it is part of the text, as the model has learnt it."""

    def max_positions(self, max_position_embeddings: int, pad_token_id: int | None) -> int:
        """Longest text that there are positions for."""
        return max_position_embeddings - ((pad_token_id or 0) + 1 if self.positions_after_padding else 0)


@dataclass(frozen=True, slots=True)
class TwoTowers:
    """A family whose checkpoints hold a text side and an image side with one space in common.

    The class has `get_text_features` and `get_image_features`, whose `pooler_output` is a vector of that space.
    """

    model: str
    text: TextArchitecture
    pads_to_longest: bool
    """Texts are padded to the longest that the model takes, not to the longest of their batch."""
    lowercase: bool = False
    """Whether texts were lowercased for training, whatever the tokenizer's file says."""


_LAYER = Pooler("pooler.", removable=True)
_SHARED = Pooler()
"""Of a whole checkpoint with two towers: nothing of it may be missing."""

_CAUSAL = ("mean", "max", "last")
"""The first token has seen nothing but itself."""

TEXT_ARCHITECTURES: Mapping[str, TextArchitecture] = {
    "albert": TextArchitecture("AlbertModel", pooler=_LAYER),
    "bert": TextArchitecture("BertModel", pooler=_LAYER),
    "camembert": TextArchitecture("CamembertModel", pooler=_LAYER, positions_after_padding=True),
    "distilbert": TextArchitecture("DistilBertModel"),
    "electra": TextArchitecture("ElectraModel"),
    "gemma3_text": TextArchitecture("Gemma3TextModel", _CAUSAL),
    "modernbert": TextArchitecture("ModernBertModel"),
    "mpnet": TextArchitecture("MPNetModel", pooler=_LAYER, positions_after_padding=True),
    "nomic_bert": TextArchitecture("NomicBertModel", pooler=_LAYER),
    "qwen3": TextArchitecture("Qwen3Model", _CAUSAL),
    "roberta": TextArchitecture("RobertaModel", pooler=_LAYER, positions_after_padding=True),
    "xlm-roberta": TextArchitecture("XLMRobertaModel", pooler=_LAYER, positions_after_padding=True),
}

TWO_TOWERS: Mapping[str, TwoTowers] = {
    "clip": TwoTowers("CLIPModel", TextArchitecture("CLIPModel", _CAUSAL, _SHARED), pads_to_longest=False),
    # Fixed-size SigLIP 2 is of this type, too.
    "siglip": TwoTowers(
        "SiglipModel",
        TextArchitecture("SiglipModel", ("mean", "max"), _SHARED, masked=False),
        pads_to_longest=True,
        lowercase=True,
    ),
}
