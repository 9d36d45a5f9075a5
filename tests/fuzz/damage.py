"""Damage to files and messages: what lines, disks and people with bad intentions do to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

EXTREMES = tuple(
    (number % 256**size).to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for number in (0, 1, 256**size // 2 - 1, 256**size // 2, -2, -1)
    for order in ("big", "little")
)
"""Numbers of 1, 2, 4 and 8 bytes, of either endianness, that lie at the ends of their ranges."""

Edit = Callable[[bytes, int], bytes]
"""A file and a place in it → the file changed there."""


def damaged(whole: bytes, others: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """`whole` with one to six faults; headers have as many as everything after them.

    Args:
        whole: a sound file or message.
        others: from which pieces are spliced in.
    """
    return st.lists(st.tuples(_places(len(whole)), _edits((whole, *others))), min_size=1, max_size=6).map(
        lambda faults: _applied(whole, faults)
    )


def _places(length: int) -> st.SearchStrategy[int]:
    return st.integers(0, min(64, length)) | st.integers(0, length)


def _edits(pieces: Sequence[bytes]) -> st.SearchStrategy[Edit]:
    count = st.integers(1, 64)
    return st.one_of(
        st.integers(0, 7).map(_flip),
        (st.sampled_from(EXTREMES) | st.binary(min_size=1, max_size=8)).map(_overwrite),
        count.map(_remove),
        count.map(_repeat),
        st.binary(min_size=1, max_size=16).map(_insert),
        st.builds(_splice, st.sampled_from(pieces), st.floats(0, 1), st.integers(1, 400)),
        st.just(_cut),
    )


def _applied(data: bytes, faults: Sequence[tuple[int, Edit]]) -> bytes:
    for place, edit in faults:
        data = edit(data, min(place, len(data)))
    return data


def _flip(bit: int) -> Edit:
    return lambda data, place: (
        data[:place] + bytes(byte ^ 1 << bit for byte in data[place : place + 1]) + data[place + 1 :]
    )


def _overwrite(value: bytes) -> Edit:
    return lambda data, place: data[:place] + value + data[place + len(value) :]


def _insert(value: bytes) -> Edit:
    return lambda data, place: data[:place] + value + data[place:]


def _remove(count: int) -> Edit:
    return lambda data, place: data[:place] + data[place + count :]


def _repeat(count: int) -> Edit:
    return lambda data, place: data[: place + count] + data[place:]


def _splice(other: bytes, start: float, count: int) -> Edit:
    first = int(start * len(other))
    return _overwrite(other[first : first + count])


def _cut(data: bytes, place: int) -> bytes:
    return data[:place]
