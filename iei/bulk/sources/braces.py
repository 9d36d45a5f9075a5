"""`shard-{000..127}.tar` → 128 names, as a shell's braces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

_RANGE = re.compile(r"(-?)(\d{1,9})\.\.(-?)(\d{1,9})")


def expand(pattern: str) -> Iterator[str]:
    """Yields what the braces in `pattern` stand for, first to last.

    `{000..127}` are numbers, as wide as the wider end if one of them begins with a zero; `{a,b}` are alternatives,
    which may have braces inside. Other braces are left as they are.
    """
    for start, end in _outermost(pattern):
        if alternatives := _alternatives(pattern[start + 1 : end]):
            for alternative in alternatives:
                for rest in expand(pattern[end + 1 :]):
                    yield pattern[:start] + alternative + rest
            return
    yield pattern


def _alternatives(inside: str) -> Iterator[str] | None:
    """What one pair of braces stands for; None if it is not for that."""
    if numbers := _RANGE.fullmatch(inside):
        first, last = int(numbers[1] + numbers[2]), int(numbers[3] + numbers[4])
        step = 1 if first <= last else -1
        padded = any(len(digits) > 1 and digits[0] == "0" for digits in (numbers[2], numbers[4]))
        width = max(len(numbers[1] + numbers[2]), len(numbers[3] + numbers[4])) if padded else 0
        return (f"{number:0{width}d}" for number in range(first, last + step, step))
    commas = [index for index, depth in _depths(inside) if inside[index] == "," and not depth]
    if not commas:
        return None
    ends = [-1, *commas, len(inside)]
    return (text for before, after in pairwise(ends) for text in expand(inside[before + 1 : after]))


def _outermost(pattern: str) -> Iterator[tuple[int, int]]:
    """Yields where each outermost pair of braces opens and closes."""
    start = 0
    for index, depth in _depths(pattern):
        if pattern[index] == "{" and depth == 1:
            start = index
        elif pattern[index] == "}" and depth == 0:
            yield start, index


def _depths(pattern: str) -> Iterator[tuple[int, int]]:
    """Yields each index with how many braces are open behind it; a closing brace too many counts for nothing."""
    depth = 0
    for index, character in enumerate(pattern):
        if character == "}" and not depth:
            continue
        depth += (character == "{") - (character == "}")
        yield index, depth
