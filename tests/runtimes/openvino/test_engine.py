"""An engine whose model has been converted before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from iei.runtimes.loading import load
from iei.runtimes.openvino.convert import convert
from tests.load_requests import load_request
from tests.pictures import base64_of, jpeg
from tests.servers import Server, serve

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def restarted(demo_cache: str) -> Iterator[Server]:
    """Started when the model has been converted, here in the process of the tests, which has torch already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iei.runtimes.openvino.load.convert", convert)
        load(load_request("demo", "demo", runtime="openvino", cache_dir=demo_cache))
    with serve({"IMAGE_EMBEDDING_MODEL": "demo", "IEI_CACHE_DIR": demo_cache, "IEI_RUNTIME": "auto"}) as server:
        yield server


def test_no_process_has_torch(restarted: Server) -> None:
    """Neither the libraries nor, in the engine, OpenVINO's front end for torch."""
    mapped = {process.pid: Path(f"/proc/{process.pid}/maps").read_text() for process in restarted.processes()}
    engines = [maps for maps in mapped.values() if "libopenvino" in maps]
    assert len(engines) == 1, "only the engine has OpenVINO"
    assert not any("libtorch" in maps for maps in mapped.values())


def test_concurrent_requests_have_the_vectors_of_lone_ones(restarted: Server) -> None:
    """Crowds are computed by other kernels than a lone request."""
    pictures = [base64_of(jpeg(64, 48, name)) for name in ("coffee", "rocket", "flower") * 3]
    alone = [httpx.post(f"{restarted.url}/embed", json={"inputs": [each]}).json()[0] for each in pictures[:3]]
    together = httpx.post(f"{restarted.url}/embed", json={"inputs": pictures}).json()
    np.testing.assert_allclose(together, alone * 3, atol=1e-4)


def test_nothing_was_converted_again(restarted: Server) -> None:
    assert "is converted" not in restarted.log
    info = httpx.get(f"{restarted.url}/info").json()
    assert info["runtime"].startswith("openvino ")
    assert info["runtime_reason"] is None
