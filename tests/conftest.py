"""Servers that many tests share, each started once and only when a test asks for it."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.servers import Server, serve

SERVERS = {"demo_server", "keyed_server", "text_server", "zoo_server"}
"""Fixtures below that start a server."""
HAS_CLIENTS = find_spec("cohere") is not None
"""Whether the packages of the clients group are here, for tests/clients."""
PROGRAMS = {"test_server.py", "test_embed.py"}
"""Modules whose every test runs a server or a program."""

ON_DEMAND = {"long": "LONG_TESTS", "cluster": "CLUSTER_TESTS"}
"""Marker → the variable that has such tests run."""


os.environ.setdefault("IEI_RUNTIME", "torch")
"""Converting a model for another runtime takes seconds: tests that are about that say so."""
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull
"""No certificates of authorities: whoever makes an HTTP client would parse all of them, for 30 ms, and tests make
thousands. None of them leaves this machine."""
PATIENCE: httpx.Timeout = inspect.signature(httpx.get).parameters["timeout"].default
PATIENCE.connect = PATIENCE.read = PATIENCE.write = 60.0
"""Of all HTTP clients that are given no other: httpx's five seconds are too few where everything shares two cores."""
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
"""Tests start hundreds of processes, each of which would compile IEI anew: a server starts in 1.5 s instead of 1.7."""
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
"""Under `uv run`, Ray would have each worker make an environment of its own. It reads this when it is imported."""


def pytest_report_header() -> str | None:
    """Says once what would be a hundred skipped tests."""
    return None if HAS_CLIENTS else "without tests/clients, which needs other people's clients: uv sync --group clients"


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test that uses a shared server; tests that start processes of their own carry the mark themselves."""
    for item in items:
        for marker, variable in ON_DEMAND.items():
            if item.get_closest_marker(marker) and not os.environ.get(variable):
                item.add_marker(pytest.mark.skip(reason=f"takes long: {variable}=1 runs it"))
        if item.path.name in PROGRAMS or SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where tested servers keep converted models, each of which is made once (IEI_CACHE_DIR)."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cert.pem` and `key.pem` for localhost and 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes certificates, is missing")
    folder = tmp_path_factory.mktemp("tls")
    options = "-x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(["openssl", "req", *options.split(), "-addext", names], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def demo_server(demo_cache: str) -> Iterator[Server]:
    """The demo model (a ViT of 192 values, with a class token) on two workers, for tests that only call it."""
    with serve({"IMAGE_EMBEDDING_MODEL": "demo", "IEI_CACHE_DIR": demo_cache}) as server:
        yield server


@pytest.fixture(scope="session")
def zoo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Tiny models, for what the demo can't do: `dinov3_vit`, the default, and `swin`, which has no class token."""
    from tests.checkpoints.vision_checkpoints import write_checkpoint  # transformers takes seconds

    folder = tmp_path_factory.mktemp("zoo")
    models = [f"{family}={write_checkpoint(family, folder / family)}" for family in ("dinov3_vit", "swin")]
    with serve({**_several(models), "IEI_PREDICT_RESIZE": "multiple"}, workers=1) as server:
        yield server


@pytest.fixture(scope="session")
def text_models(tmp_path_factory: pytest.TempPathFactory, demo_cache: str) -> dict[str, str]:
    """Settings: `clip`, tiny, for texts and pictures (the default), and `minilm`, with trained weights, for texts."""
    from tests.checkpoints.text_checkpoints import trained_folder, write_text_checkpoint
    from tests.converted import load_here

    clip, minilm = write_text_checkpoint("clip", tmp_path_factory.mktemp("texts") / "clip"), trained_folder()
    for folder in (clip, minilm):
        load_here(folder, demo_cache)
    return {**_several([f"clip={clip}", f"minilm={minilm}"]), "IEI_CACHE_DIR": demo_cache}


@pytest.fixture(scope="session")
def text_server(text_models: dict[str, str]) -> Iterator[Server]:
    """A server of `text_models` that is open to all."""
    with serve(text_models, workers=1) as server:
        yield server


@pytest.fixture(scope="session")
def keyed_server(text_models: dict[str, str]) -> Iterator[Server]:
    """A server of `text_models` that takes two keys: `secret`, and `slow`, whose every second request is too soon.

    `slow` may send one input in 50 seconds: of two requests, the second is answered 429 with a `Retry-After`, and the
    first one too if another test has used the key shortly before. Tests send two and expect one 429 or more; their
    client must not try again by itself.
    """
    with serve({**text_models, "IEI_API_KEYS": "quick=secret, limited=slow inputs_per_s=0.02"}, workers=1) as server:
        yield server


def _several(models: list[str]) -> dict[str, str]:
    return {"IEI_MODELS": ",".join(models), "IEI_MAX_LOADED_MODELS": str(len(models))}
