"""Which shorter vectors a checkpoint says that it was trained for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iei.checkpoints.matryoshka import read_matryoshka
from iei.models.spec import Matryoshka


@pytest.mark.parametrize(
    ("config", "described", "expected"),
    [
        ({}, None, None),
        ({"is_matryoshka": True}, None, True),
        ({"is_matryoshka": False}, None, False),
        ({"is_matryoshka": True, "matryoshka_dimensions": [512, 64, 64]}, None, (64, 512)),
        ({"matryoshka_dimensions": [256]}, {"truncate_dim": 128}, (256,)),
        ({}, {"truncate_dim": 128}, (128,)),
        ({}, {"truncate_dim": None}, None),
        ({"is_matryoshka": "yes", "matryoshka_dimensions": "64"}, {"truncate_dim": True}, None),
        ({"matryoshka_dimensions": []}, {}, None),
    ],
)
def test_what_its_files_say(
    config: dict[str, Any], described: dict[str, Any] | None, expected: Matryoshka, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if described is not None:
        (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(described))
    assert read_matryoshka(tmp_path, "some/model") == expected


def test_what_its_authors_say(tmp_path: Path) -> None:
    """Where its files are silent."""
    (tmp_path / "config.json").write_text("{}")
    assert read_matryoshka(tmp_path, "google/embeddinggemma-300m") == (128, 256, 512, 768)
    (tmp_path / "config.json").write_text('{"is_matryoshka": false}')
    assert read_matryoshka(tmp_path, "google/embeddinggemma-300m") is False
