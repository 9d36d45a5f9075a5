"""The table model_type → how an architecture computes texts. `vision_architectures` has the table for pictures.

One row per family, each compared with transformers by tests/runtimes/torch/test_text_parity.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iei.checkpoints.vision_architectures import LAYER, WEIGHTLESS, Pooler


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
    """Positions count from `pad_token_id + 1`, so that many rows of the position table are unused."""
    fixed_length: bool = False
    """Texts are padded to the model's longest, and the padding is not masked, as in training. Otherwise they are
    padded to the longest of their batch, and the padding is masked."""
    lowercase: bool = False
    """Texts were lowercased for training, whatever the tokenizer's file says."""

    def max_positions(self, max_position_embeddings: int, pad_token_id: int | None) -> int:
        """Returns the longest text that there are positions for, in tokens."""
        return max_position_embeddings - ((pad_token_id or 0) + 1 if self.positions_after_padding else 0)


_NO_CLASS_TOKEN = ("mean", "max", "last")
"""Poolings where the first token does not represent the text. In causal models, it has seen only itself."""

TEXT_ARCHITECTURES: Mapping[str, TextArchitecture] = {
    "albert": TextArchitecture("AlbertModel", pooler=LAYER),
    "bert": TextArchitecture("BertModel", pooler=LAYER),
    "camembert": TextArchitecture("CamembertModel", pooler=LAYER, positions_after_padding=True),
    "distilbert": TextArchitecture("DistilBertModel"),
    "electra": TextArchitecture("ElectraModel"),
    "gemma3_text": TextArchitecture("Gemma3TextModel", _NO_CLASS_TOKEN),
    "modernbert": TextArchitecture("ModernBertModel"),
    "mpnet": TextArchitecture("MPNetModel", pooler=LAYER, positions_after_padding=True),
    "nomic_bert": TextArchitecture("NomicBertModel", pooler=LAYER),
    "qwen3": TextArchitecture("Qwen3Model", _NO_CLASS_TOKEN),
    "roberta": TextArchitecture("RobertaModel", pooler=LAYER, positions_after_padding=True),
    "xlm-roberta": TextArchitecture("XLMRobertaModel", pooler=LAYER, positions_after_padding=True),
}

TWO_TOWERS: Mapping[str, TextArchitecture] = {
    "clip": TextArchitecture("CLIPModel", _NO_CLASS_TOKEN, WEIGHTLESS),
    # Fixed-size SigLIP 2 is of this type, too.
    "siglip": TextArchitecture("SiglipModel", _NO_CLASS_TOKEN, WEIGHTLESS, fixed_length=True, lowercase=True),
}
"""The text sides of checkpoints that have an image side, too; the image sides are in `VISION_ARCHITECTURES`.

The class computes both. It has `get_text_features` and `get_image_features`, whose `pooler_output` is a vector of the
space that the sides share. No weight of either side may be missing.
"""
