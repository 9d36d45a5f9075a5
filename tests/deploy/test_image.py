"""The Docker image and docker-compose.yaml set no environment variable that would override a user's choice."""

from __future__ import annotations

from pathlib import Path

from iei.settings import SETTINGS

ROOT = Path(__file__).parents[2]


def test_the_image_and_compose_choose_no_model() -> None:
    """Or MODEL_ID and the folder that KServe mounts would count for nothing."""
    image = (ROOT / "Dockerfile").read_text()
    compose = (ROOT / "docker-compose.yaml").read_text()
    for setting in ("model", "models", "fallback_model"):
        for name in SETTINGS[setting].variables:
            assert f"{name}=" not in image
            assert f"{name}:" not in compose or f"{name}: ${{{name}:-}}" in compose
