"""What the image is set to, a deployment can't tell from what its user has chosen."""

from __future__ import annotations

from pathlib import Path

from iei.settings import Settings, env_names

ROOT = Path(__file__).parents[2]


def test_the_image_and_compose_choose_no_model() -> None:
    """Or MODEL_ID and the folder that KServe mounts would count for nothing."""
    image = (ROOT / "Dockerfile").read_text()
    compose = (ROOT / "docker-compose.yaml").read_text()
    for setting in ("model", "models", "fallback_model"):
        for name in env_names(Settings.model_fields[setting]):
            assert f"{name}=" not in image
            assert f"{name}:" not in compose or f"{name}: ${{{name}:-}}" in compose
