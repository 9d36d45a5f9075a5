"""Models converted for OpenVINO by the process of the tests, which has torch already: a converter would import it."""

from __future__ import annotations

from pathlib import Path

import pytest

from iei.runtimes.api import Model
from iei.runtimes.loading import load
from iei.runtimes.openvino.convert import convert
from tests.load_requests import load_request


def load_here(checkpoint: Path, cache_dir: Path | str, runtime: str = "openvino") -> Model:
    """The checkpoint in `runtime`. What is converted for that stays in `cache_dir`, for servers with the same one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iei.runtimes.openvino.load.convert", convert)
        return load(load_request("tiny", str(checkpoint), runtime=runtime, cache_dir=Path(cache_dir), threads=1))
