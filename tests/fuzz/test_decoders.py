"""Pictures of every format, damaged in every way: an RGB picture within the limits, or a message."""

from __future__ import annotations

import resource
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iei.encoded import Encoded
from iei.errors import EmptyInput, InvalidInput
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import FORMATS, DecodeLimits, decoded, undecoded
from iei.inputs.jpeg import plain
from iei.models.spec import Geometry
from tests.fuzz.corpus import HEIGHT, WIDTH, corpus
from tests.fuzz.damage import damaged
from tests.fuzz.effort import examples
from tests.fuzz.refusals import or_refused
from tests.pictures import encoded

# Pillow's warnings about odd files are ignored in a process that serves, and errors in a process that tests.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

MAX_PIXELS = 1_000_000
MAX_SIDE = 10_000
LIMITS = DecodeLimits(MAX_PIXELS, MAX_SIDE, PixelBudget(2 * MAX_PIXELS), max_encoded_bytes=2**21)
MAX_S = 10.0
"""Processor time for one file: the slowest that were found take a tenth of it."""
MAX_KIB = 100 * 1024
"""By which one file may raise the most memory that this process has had."""


def files() -> st.SearchStrategy[bytes]:
    sound = (*corpus().values(), *encoded().values())
    return st.sampled_from(sound).flatmap(lambda file: damaged(file, sound))


@pytest.mark.parametrize("name", corpus())
def test_the_corpus_is_sound(name: str) -> None:
    with decoded(corpus()[name], LIMITS) as image:
        assert image.mode == "RGB"
        assert image.size == ((HEIGHT, WIDTH) if "turned" in name else (WIDTH, HEIGHT))


def test_the_corpus_has_every_format_in_many_modes() -> None:
    modes = {format: {name.split()[1] for name in corpus() if name.startswith(format)} for format in FORMATS}
    assert modes["JPEG"] >= {"1", "L", "RGB", "CMYK", "YCbCr"}
    assert modes["PNG"] >= {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
    assert modes["TIFF"] >= {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"}
    assert modes["BMP"] >= {"1", "L", "P", "RGB", "RGBA"}
    assert modes["GIF"] >= {"1", "L", "P", "RGB"}
    assert modes["WEBP"] >= {"L", "RGB", "RGBA"}
    assert modes["AVIF"] >= {"L", "RGB", "RGBA"}


@examples(400)
@given(file=files() | st.binary(max_size=200), target=st.none() | st.just((8, 8)))
def test_any_file_is_a_picture_or_refused(file: bytes, target: tuple[int, int] | None) -> None:
    limits = replace(LIMITS, fast=target is not None)
    started, memory = time.thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with or_refused(InvalidInput, EmptyInput), decoded(file, limits, target=target) as image:
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= MAX_PIXELS
        assert max(image.size) <= MAX_SIDE
        assert len(image.tobytes()) == 3 * image.width * image.height
    assert LIMITS.budget.held == 0
    assert time.thread_time() - started < MAX_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MAX_KIB


@examples(400)
@given(file=files() | st.binary(max_size=200))
def test_what_is_left_to_the_engine_is_a_plain_jpeg_within_the_limits(file: bytes) -> None:
    with or_refused(InvalidInput, EmptyInput):
        if left := undecoded(file, LIMITS, Geometry("exact", 224, 224, resample=3)):
            jpeg, size = left
            assert 0 < size.width * size.height == jpeg.width * jpeg.height <= MAX_PIXELS
            jpeg = Encoded.unpack(jpeg.pack())
            content = jpeg.file.tobytes()
            assert plain(content) == (jpeg.height, jpeg.width, content)
