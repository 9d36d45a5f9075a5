"""HTTP APIs ("dialects"). Each is implemented by one module and listed in `DIALECTS`."""

from __future__ import annotations

from collections.abc import Callable

from iei.dialects import cohere, instances, kserve, litserve, ollama, openai, qdrant, tei, voyage, weaviate, zero_shot
from iei.dialects.registry import Dialect
from iei.service import EmbeddingService
from iei.settings import DialectSettings

DIALECTS: tuple[Callable[[EmbeddingService, DialectSettings], Dialect], ...] = (
    tei.dialect,
    openai.dialect,
    kserve.dialect,
    instances.dialect,  # before LitServe's: `/predict` is a common AIP_PREDICT_ROUTE
    litserve.dialect,
    zero_shot.dialect,
    weaviate.dialect,
    qdrant.dialect,
    cohere.dialect,
    voyage.dialect,
    ollama.dialect,
)
"""Constructors of all dialects. The first one formats errors on paths that belong to no dialect."""
