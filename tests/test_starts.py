"""What a start does not wait for: libraries that are not needed yet, or not at all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def imported(module: str) -> set[str]:
    """The modules that come with a module."""
    code = (
        f"import json, sys\nbefore = {{*sys.modules}}\nimport {module}\nprint(json.dumps([*{{*sys.modules}} - before]))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("iei.engine.supervisor", {"numpy", "pydantic", "importlib.metadata", "orjson"}),
        ("iei.engine.process", {"asyncio", "iei.settings"}),
        ("iei.commands.serve", {"numpy", "fastapi", "uvicorn", "gunicorn.arbiter", "prometheus_client"}),
        ("iei.runtimes.loading", {"huggingface_hub", "openvino", "torch"}),
        ("iei.commands.master", {"huggingface_hub", "openvino", "torch"}),
    ],
)
def test_what_is_not_imported(module: str, unneeded: set[str]) -> None:
    assert not imported(module) & unneeded
