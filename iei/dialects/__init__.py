"""HTTP APIs ("dialects"). Each is implemented by one module and listed in `DIALECTS`."""

from __future__ import annotations

from collections.abc import Callable

from iei.dialects import (
    cohere,
    immich,
    instances,
    kserve,
    litserve,
    llama_cpp,
    nim,
    ollama,
    openai,
    qdrant,
    raw,
    tei,
    voyage,
    weaviate,
    zero_shot,
)
from iei.dialects.registry import Dialect
from iei.service import EmbeddingService
from iei.settings import DialectSettings

DIALECTS: tuple[Callable[[EmbeddingService, DialectSettings], Dialect], ...] = (
    raw.dialect,
    tei.dialect,
    zero_shot.dialect,
    openai.dialect,
    nim.dialect,
    llama_cpp.dialect,
    cohere.dialect,
    voyage.dialect,
    ollama.dialect,
    kserve.dialect,
    instances.dialect,  # before LitServe's: `/predict` is a common AIP_PREDICT_ROUTE
    immich.dialect,
    litserve.dialect,
    weaviate.dialect,
    qdrant.dialect,
)
"""Constructors of all dialects. The first one formats errors on paths that belong to no dialect.

Where two have the same path, the one that takes only some media types comes first (iei.dialects.media).
"""
