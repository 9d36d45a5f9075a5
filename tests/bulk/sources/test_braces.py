"""Braces stand for what they stand for in a shell."""

from __future__ import annotations

import subprocess
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iei.bulk.sources.braces import expand


def test_shards_are_counted_with_their_zeros() -> None:
    names = list(expand("s3://bucket/shard-{000..127}.tar"))
    assert names[0] == "s3://bucket/shard-000.tar"
    assert names[-1] == "s3://bucket/shard-127.tar"
    assert len(names) == len(set(names)) == 128


PATTERNS = [
    "a{b,c{1..3}}d{x,y}",
    "{3..1}",
    "{08..11}",
    "{-01..1}",
    "{a,}b",
    "a{b}c",
    "x}y",
    "{a,b}{1}",
    "{1..3}{a,b}",
    "a",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_is_what_bash_makes_of_it(pattern: str) -> None:
    shell = subprocess.run(["bash", "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True, check=True)
    assert list(expand(pattern)) == shell.stdout.splitlines()


def test_a_billion_names_are_not_made_at_once() -> None:
    assert list(islice(expand("{0..999999999}"), 2)) == ["0", "1"]


@given(st.lists(st.text("ab,.0-/{}", max_size=6), max_size=5).map("".join))
def test_any_pattern_ends_and_only_braces_are_replaced(pattern: str) -> None:
    names = list(islice(expand(pattern), 1000))
    assert names
    if "{" not in pattern:
        assert names == [pattern]


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 5))
def test_ranges_are_whole(first: int, last: int, width: int) -> None:
    names = list(expand(f"x{{{first:0{width}d}..{last:0{width}d}}}"))
    assert [int(name[1:]) for name in names] == list(
        range(first, last + 1) if first <= last else range(first, last - 1, -1)
    )
