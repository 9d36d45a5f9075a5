"""OpenVINO without its converter of models, which takes as long to import as all the rest. Only `convert` needs it."""

from __future__ import annotations

import sys
from functools import cache

CONVERTER = "openvino.tools.ovc"

_was_there = CONVERTER in sys.modules
if not _was_there:
    sys.modules[CONVERTER] = None  # type: ignore[assignment]  # what Python calls not importable, as OpenVINO allows

import openvino as ov  # noqa: E402
import openvino.properties as properties  # noqa: E402
import openvino.properties.hint as hint  # noqa: E402

if not _was_there:
    del sys.modules[CONVERTER]

__all__ = ["core", "hint", "ov", "properties"]


@cache
def core() -> ov.Core:
    """The only one of this process, for ever.

    Its plugin for CPUs gives the thread that loads it another stack for signals, and unmaps that stack when the last of
    its models is gone, in whichever thread that happens: the next signal would end the process (SIGSEGV).
    """
    return ov.Core()
