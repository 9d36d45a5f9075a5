"""libtiff writes lines of its own about damaged files to stderr, between those of the log. Here it is told not to."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

from PIL import features


def silence_libtiff() -> None:
    """Takes libtiff's handlers away: what is wrong with a file is in Pillow's exception, and in the answer.

    Pillow has no option for it. The library is the very one that Pillow has loaded, found among this process' mapped
    files; where there is none of its own (macOS, or libtiff linked into Pillow), the lines stay.
    """
    features.check("libtiff")  # loads it
    for path in _mapped():
        library = ctypes.CDLL(path)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


def _mapped() -> set[str]:
    maps = Path("/proc/self/maps")
    return set(re.findall(r"/\S*/libtiff[^/\s]*\.so\S*", maps.read_text())) if maps.exists() else set()
