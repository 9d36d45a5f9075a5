"""What clients say their texts are for → names of the prompts that suit it."""

from __future__ import annotations

from collections.abc import Mapping

_QUERY = ("query", "search_query")
_DOCUMENT = ("document", "passage", "search_document")
_SUITABLE: Mapping[str, tuple[str, ...]] = {
    "query": _QUERY,
    "search_query": _QUERY,
    "document": _DOCUMENT,
    "passage": _DOCUMENT,
    "search_document": _DOCUMENT,
}


def prompts_for(input_type: str | None) -> tuple[str, ...]:
    """The `Options.prompt_hints` of an `input_type`. None is unknown: a model may have a prompt of any name.

    Args:
        input_type: what the request says its texts are, such as `search_query`. None: it does not say.
    """
    return (input_type, *_SUITABLE.get(input_type, ())) if input_type else ()
