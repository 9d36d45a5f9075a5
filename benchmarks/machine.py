"""Where a figure comes from: without it, no figure means anything."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

PACKAGES = (
    "torch",
    *(("openvino",) if find_spec("openvino") else ()),
    "transformers",
    "pillow",
    "gunicorn",
    "uvicorn",
    "fastapi",
)
EXTENSIONS = {"avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "BF16", "amx_tile": "AMX"}
"""Flag of the CPU → what it is called."""


def describe() -> dict[str, str]:
    """CPU, cores, and versions of Python and of the packages that matter."""
    return {
        "cpu": cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def cpu_model() -> str:
    """The CPU's name as Linux knows it, with its extensions: two of one name may differ in them."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = facts.get("flags", "").split()
    extensions = [name for flag, name in EXTENSIONS.items() if flag in flags]
    return ", ".join([facts.get("model name", platform.machine()), *extensions])
