"""Servers that many tests share, each started once and only when a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Server, serve


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where tested servers keep the demo model, so that it is made once (IEI_CACHE_DIR)."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def demo_server(demo_cache: str) -> Iterator[Server]:
    """The demo model (a ViT of 192 values, with a class token) on two workers, for tests that only call it."""
    with serve({"IMAGE_EMBEDDING_MODEL": "demo", "IEI_CACHE_DIR": demo_cache}) as server:
        yield server


ZOO = ("dinov3_vit", "swin")
"""Families of tests/models/checkpoints.py: one that takes pictures of any size, one without a class token."""


@pytest.fixture(scope="session")
def zoo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Tiny models of the families of ZOO, by these names, for tests of what the demo model can't do."""
    from tests.models.checkpoints import write_checkpoint  # transformers takes seconds

    folder = tmp_path_factory.mktemp("zoo")
    env = {
        "IEI_MODELS": ",".join(f"{family}={write_checkpoint(family, folder / family)}" for family in ZOO),
        "IEI_MAX_LOADED_MODELS": str(len(ZOO)),
        "IEI_PREDICT_RESIZE": "multiple",
    }
    with serve(env, workers=1) as server:
        yield server
