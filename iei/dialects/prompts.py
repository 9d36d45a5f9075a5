"""What clients say their texts are for → names of the prompts that suit it."""

from __future__ import annotations

from collections.abc import Mapping

_QUERY = ("query", "search_query", "retrieval.query")
_DOCUMENT = ("document", "passage", "corpus", "search_document", "retrieval.passage")
"""The first three are those of sentence-transformers' `encode_document`, the others are Nomic's and Jina's."""
_SUITABLE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_QUERY, _QUERY),
    **dict.fromkeys(_DOCUMENT, _DOCUMENT),
}


def prompts_for(input_type: str | None) -> tuple[str, ...]:
    """The `Options.prompt_hints` of an `input_type`. None is unknown: a model may have a prompt of any name.

    Args:
        input_type: what the request says its texts are, such as `search_query`. None: it does not say.
    """
    return tuple(dict.fromkeys((input_type, *_SUITABLE.get(input_type, ())))) if input_type else ()
