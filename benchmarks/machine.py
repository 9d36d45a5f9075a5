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


def describe() -> dict[str, str]:
    """CPU, cores, and versions of Python and of the packages that matter."""
    return {
        "cpu": cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def cpu_model() -> str:
    """The CPU's name as Linux knows it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
