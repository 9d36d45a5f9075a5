"""JSON values that differ from sound ones in a few places."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

_ODD: st.SearchStrategy[Any] = st.sampled_from(
    (
        None,
        True,
        0,
        -1,
        1,
        2**31,
        2**63,
        2**64,
        10**40,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "\0",
        "\ud800",
        "{}",
        "data:",
        "http://",
        "data:image/png;base64,",
        "AAAA",
        [],
        {},
        [[]],
        [None],
        [[[[[0]]]]],
    )
)
ANY_JSON = st.recursive(
    _ODD | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def changed_json(draw: st.DrawFn, sound: Any) -> Any:
    """`sound` with up to three places in it replaced, removed, repeated, wrapped, or moved elsewhere."""
    value = {"": copy.deepcopy(sound)}
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(("replace", "replace", "remove", "repeat", "wrap", "rename", "swap"))):
            case "replace":
                holder[key] = draw(ANY_JSON)
            case "remove":
                del holder[key]
            case "repeat" if isinstance(holder[key], list):
                holder[key] = holder[key] * draw(st.integers(2, 40))
            case "wrap":
                holder[key] = [holder[key]]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.text(max_size=8))] = holder.pop(key)
            case "swap":
                other, its = draw(st.sampled_from(places))
                holder[key] = copy.deepcopy(other[its])
            case _:
                holder[key] = str(holder[key])
    return value.get("")


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """All places of a value, each as what holds it and its key there."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])
