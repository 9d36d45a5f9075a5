"""Damaged TIFFs are told of in the answer, and not on stderr."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import io, sys
from PIL import Image
from iei.errors import InvalidInput
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits, configure_pillow, decoded

if sys.argv[1] == "silent":
    configure_pillow(10**6)
file = io.BytesIO()
Image.effect_noise((64, 64), 90).save(file, "TIFF", compression="tiff_adobe_deflate")
damaged = bytearray(file.getvalue())
damaged[1000:1100] = 100 * b"\\xff"  # of the pixels, which come before the table
try:
    with decoded(bytes(damaged), DecodeLimits(10**6, 10**4, PixelBudget(10**6))):
        print("decoded")
except InvalidInput as error:
    print("refused")
"""


@pytest.mark.parametrize(("mode", "says"), [("silent", ""), ("loud", "ZIPDecode")])
def test_libtiff_writes_no_lines_of_its_own(mode: str, says: str) -> None:
    """`loud`: that there would be some, which shows that this file is the right one to test with."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "refused\n"
    assert (done.stderr == "") if mode == "silent" else (says in done.stderr)
