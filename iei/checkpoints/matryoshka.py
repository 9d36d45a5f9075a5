"""For which shorter vectors a checkpoint was trained (Matryoshka representation learning).

There is no standard for it. vLLM and SGLang read two fields of `config.json`, and sentence-transformers writes one
into its own file; the rest say it on their pages only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from iei.checkpoints.files import read_json
from iei.models.spec import Matryoshka

KNOWN: Mapping[str, Matryoshka] = {
    # Their pages: any length from 32 on.
    "Qwen/Qwen3-Embedding-0.6B": True,
    "Qwen/Qwen3-Embedding-4B": True,
    "Qwen/Qwen3-Embedding-8B": True,
    # Its page, and https://arxiv.org/abs/2509.20354.
    "google/embeddinggemma-300m": (128, 256, 512, 768),
    # Its page, with a score for each length.
    "nomic-ai/nomic-embed-text-v1.5": (64, 128, 256, 512, 768),
}
"""Hub id → what its authors say, of models of supported families whose files don't."""


def read_matryoshka(folder: Path, model_id: str) -> Matryoshka:
    """Returns the lengths that a checkpoint was trained for; True for any; False for none; None if that is not known.

    Args:
        folder: the checkpoint's.
        model_id: the hub id that it came from, or anything else.

    Raises:
        StartupError: a file is not JSON.
    """
    config = read_json(folder / "config.json") or {}
    described = read_json(folder / "config_sentence_transformers.json") or {}
    lengths = _lengths(config.get("matryoshka_dimensions")) or _lengths([described.get("truncate_dim")])
    if lengths:
        return lengths
    flag = config.get("is_matryoshka")
    return flag if isinstance(flag, bool) else KNOWN.get(model_id)


def _lengths(value: object) -> tuple[int, ...]:
    """Returns the positive integers of a list, in ascending order; none of anything else."""
    listed = value if isinstance(value, list) else []
    return tuple(sorted({item for item in listed if type(item) is int and item > 0}))
