"""What a JSON document would become, counted in its bytes before it is parsed.

Three bytes can become a hundred: 48 MB of empty strings take 40 s and a gigabyte. No request needs many objects,
however many bytes it has: pictures and texts are few, long strings. Only token ids are numerous, and they are cheap.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from iei.errors import InvalidField
from iei.settings import Settings

PARTS_OF_AN_INPUT = 32
"""Most strings, names of fields, lists and objects of an input, in all dialects: Qdrant's inputs have 20."""
PARTS_OF_A_REQUEST = 1024
"""The same, of all that a request says besides its inputs."""
BYTES_OF_AN_ID = 16
"""Most digits of numbers, and bytes of strings beyond ASCII, for each token id (or character) of a request."""
PIECE_BYTES = 256 * 1024
"""Bytes that are counted together: with NumPy's intermediate arrays they fit into a CPU's cache."""
YIELD_BYTES = 8 * PIECE_BYTES
"""Bytes that are counted before other requests have their turn: 10 ms at most."""


class Counts(NamedTuple):
    """What a document has, or may have."""

    parts: int
    """Strings, names of fields, lists and objects."""
    values: int
    """What commas separate, and the first of each list and object."""
    digits: int
    """Outside of strings. Those of long numbers take 6 ns each."""
    wide: int
    """Bytes of strings that have a character beyond ASCII: one makes Python store four bytes for every character."""

    def within(self, limits: Counts) -> bool:
        """Whether no count is over its limit."""
        return all(count <= limit for count, limit in zip(self, limits, strict=True))


class JsonLimits:
    """Limits on what a JSON document may consist of.

    Args:
        max_inputs: inputs of a request.
        max_ids: token ids of a request, or characters of a text.
    """

    def __init__(self, max_inputs: int, max_ids: int) -> None:
        parts = PARTS_OF_A_REQUEST + PARTS_OF_AN_INPUT * max_inputs
        self._most = Counts(parts, parts + max_ids, BYTES_OF_AN_ID * max_ids, BYTES_OF_AN_ID * max_ids)
        by_ids = f"the limit where a text may have {max_ids} token ids (IEI_MAX_TEXT_LENGTH)"
        self._messages = (
            f"{parts} strings, names of fields, lists and objects, the limit for {max_inputs} inputs (IEI_MAX_INPUTS)",
            f"{self._most.values} values, {by_ids}",
            f"{self._most.digits} digits, {by_ids}",
            f"{self._most.wide} bytes of strings that are not ASCII, {by_ids}",
        )

    @classmethod
    def of(cls, settings: Settings) -> JsonLimits:
        """The limits that follow from the settings."""
        return cls(settings.requests.max_inputs, settings.inputs.max_text_length)

    async def check(self, document: bytes) -> None:
        """Counts what is in `document`; yields to the event loop meanwhile.

        Up to its first fault, where a parser stops, a document that is not JSON is counted as one that is.

        Raises:
            InvalidField: there is more than there may be.
        """
        if len(document) <= self._most.parts:
            return
        for count in (UpperBound(), ExactCount()):
            for start in range(0, len(document), PIECE_BYTES):
                count.add(document[start : start + PIECE_BYTES])
                if not count.counts.within(self._most):
                    break
                if start and start % YIELD_BYTES == 0:
                    await asyncio.sleep(0)
            else:
                return
        excess = next(m for m, n, most in zip(self._messages, count.counts, self._most, strict=True) if n > most)
        raise InvalidField(
            f"the body has more than {excess}: send fewer inputs at a time, and pictures as encoded files, not as "
            "lists of pixels"
        )


class UpperBound:
    """Counts at least what there is, as if nothing were within a string. 1 ms/MB."""

    def __init__(self) -> None:
        self._size = self._commas = self._opened = self._quotes = self._digits = 0
        self._is_ascii = True

    @property
    def counts(self) -> Counts:
        """What there was so far."""
        wide = 0 if self._is_ascii else self._size
        return Counts(self._opened + self._quotes // 2, self._opened + self._commas, self._digits, wide)

    def add(self, piece: bytes) -> None:
        """Counts the next bytes of the document."""
        found = np.frombuffer(piece, np.uint8)
        self._commas += _number_of(found == _COMMA)
        self._quotes += _number_of(found == _QUOTE)
        self._opened += _number_of(found == _LIST) + _number_of(found == _OBJECT)
        self._digits += _number_of(_are_digits(found))
        self._size += len(piece)
        self._is_ascii = self._is_ascii and piece.isascii() and not _may_escape(piece)


class ExactCount:
    """Counts what there is, without what is within strings. 8 ms/MB."""

    def __init__(self) -> None:
        self._commas = self._opened = self._quotes = self._digits = self._wide = 0
        self._rest = b""
        """A backslash at the end of a piece, whose second character is in the next one."""
        self._is_inside = np.uint8(0)
        """1: the next byte is within a string."""
        self._length, self._is_wide = 0, False
        """Bytes since the last quote, and whether one of them is beyond ASCII."""

    @property
    def counts(self) -> Counts:
        """What there was so far."""
        wide = self._wide + (self._length if self._is_wide else 0)
        return Counts(self._opened + self._quotes // 2, self._opened + self._commas, self._digits, wide)

    def add(self, piece: bytes) -> None:
        """Counts the next bytes of the document."""
        plain = (self._rest + piece).replace(rb"\\", b"..")  # of a run of backslashes, the first pairs with the second
        self._rest = b"\\" if plain.endswith(b"\\") else b""
        found = np.frombuffer(plain.removesuffix(b"\\").replace(rb"\"", b".."), np.uint8)
        if not found.size:
            return
        quotes = found == _QUOTE
        # Wraps around at 256, which is even: the last bit is whether the quotes so far are odd.
        outside = (np.cumsum(quotes, dtype=np.uint8) + self._is_inside) & 1 == 0
        self._is_inside = np.uint8(not outside[-1])
        self._quotes += _number_of(quotes)
        self._commas += _number_of(outside & (found == _COMMA))
        self._opened += _number_of(outside & ((found == _LIST) | (found == _OBJECT)))
        self._digits += _number_of(outside & _are_digits(found))
        self._add_strings(found, quotes)

    def _add_strings(self, found: npt.NDArray[np.uint8], quotes: npt.NDArray[np.bool_]) -> None:
        """Adds up what is between quotes, be it a string or not, where it has a character beyond ASCII."""
        are_wide = found >= 0x80
        are_wide[:-1] |= (found[:-1] == _BACKSLASH) & (found[1:] == _U)
        starts = np.union1d(0, np.flatnonzero(quotes))
        wide = np.logical_or.reduceat(are_wide, starts)
        lengths = np.diff(starts, append=found.size)
        if not quotes[0]:  # the first goes on from the piece before
            lengths[0] += self._length
            wide[0] |= self._is_wide
        elif self._is_wide:
            self._wide += self._length
        self._wide += int(lengths[:-1][wide[:-1]].sum())
        self._length, self._is_wide = int(lengths[-1]), bool(wide[-1])


_COMMA, _QUOTE, _LIST, _OBJECT, _BACKSLASH, _U = b',"[{\\u'


def _are_digits(found: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return found - np.uint8(ord("0")) < 10  # what is below 0 wraps around


def _may_escape(piece: bytes) -> bool:
    r"""Whether a piece has a `\u`, or may begin one. To look for just that takes ten times as long in base64."""
    return b"\\" in piece and (rb"\u" in piece or piece.endswith(b"\\"))


def _number_of(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))
